sh -c 'echo -n renamed > /proc/self/comm; cat /proc/$$/comm; true'
