grep -n pgpg /proc/vmstat | sed 's/.*:\([a-z]*\) .*/\1/' | tr '\n' ' '
