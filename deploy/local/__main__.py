import sys

from deploy.local import assemble

sys.exit(assemble.main())
