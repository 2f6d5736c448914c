"""An HTTP port in the pod's loop, and the pages of the management port."""
