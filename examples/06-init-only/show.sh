cat /proc/sys/net/ipv4/tcp_rmem
