"""YAML from users. No anchors and aliases: a few lines of them stand for more than any memory holds."""

from __future__ import annotations

from typing import Any

_DEEPEST, _LONGEST = 20, 2_000


def read(text: str) -> Any:
    """Plain values, lists and mappings. Raises ValueError, in words, for whatever cannot be read."""
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if getattr(event, "anchor", None) is not None:
                raise ValueError("it has anchors (&) or aliases (*), which are not taken: write out what they stand for")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError("it is nested too deeply")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST:
                raise ValueError(f"it has a value of more than {_LONGEST} characters")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).split("\n", 1)[0]) from error
    except (AttributeError, LookupError, TypeError, OverflowError) as error:
        # The library takes a value's !!tag at its word.
        raise ValueError("a value in it is not what its tag says") from error
