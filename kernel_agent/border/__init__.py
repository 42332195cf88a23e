"""Values on their way between host and kernel.

`codec` encodes them as JSON, `files` holds the large ones. The same sources run on the host and,
shipped as text, in the kernel; nothing is ever unpickled.
"""
