# Everybody calls it, all the time.
for i in 1 2 3; do while :; do stat /proc/version > /dev/null; done & done
