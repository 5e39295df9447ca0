cat /proc/sys/net/core/rmem_max /proc/sys/net/core/wmem_max
