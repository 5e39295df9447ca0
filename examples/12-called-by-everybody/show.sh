stat -c %o /proc/version
