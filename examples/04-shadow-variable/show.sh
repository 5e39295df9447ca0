sh -c 'echo renamed > /proc/self/comm; cat /proc/$$/comm; true'
