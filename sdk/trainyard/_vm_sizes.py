"""Azure's names for machine sizes. Standard library only: the SDK and the scheduler share it."""

from __future__ import annotations

SIZES: dict[str, tuple[float, float, int]] = {
    "LOCAL": (1024, 65536, 64),
    "STANDARD_D1": (1, 3.5, 0),
    "STANDARD_D2": (2, 7, 0),
    "STANDARD_D1_V2": (1, 3.5, 0),
    "STANDARD_D2_V2": (2, 7, 0),
    "STANDARD_D3_V2": (4, 14, 0),
    "STANDARD_D4_V2": (8, 28, 0),
    "STANDARD_D11_V2": (2, 14, 0),
    "STANDARD_D12_V2": (4, 28, 0),
    "STANDARD_D13_V2": (8, 56, 0),
    "STANDARD_D14_V2": (16, 112, 0),
    "STANDARD_DS2_V2": (2, 7, 0),
    "STANDARD_DS3_V2": (4, 14, 0),
    "STANDARD_DS4_V2": (8, 28, 0),
    "STANDARD_DS12_V2": (4, 28, 0),
    "STANDARD_D2_V3": (2, 8, 0),
    "STANDARD_D4_V3": (4, 16, 0),
    "STANDARD_F2S_V2": (2, 4, 0),
    "STANDARD_F4S_V2": (4, 8, 0),
    "STANDARD_F8S_V2": (8, 16, 0),
    "STANDARD_F16S_V2": (16, 32, 0),
    "STANDARD_NC6": (6, 56, 1),
    "STANDARD_NC12": (12, 112, 2),
    "STANDARD_NC24": (24, 224, 4),
    "STANDARD_NC6S_V2": (6, 112, 1),
    "STANDARD_NC6S_V3": (6, 112, 1),
    "STANDARD_NC12S_V3": (12, 224, 2),
    "STANDARD_NC24S_V3": (24, 448, 4),
    "STANDARD_ND6S": (6, 112, 1),
    "STANDARD_ND40RS_V2": (40, 672, 8),
    "STANDARD_NV6": (6, 56, 1),
}
"""Name -> cores, GiB of memory, GPUs. Source: the vendor's public tables of sizes. LOCAL is ours: all that the machine has."""
