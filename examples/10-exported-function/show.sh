# A parameter that is a boolean; it is Y.
parameter=/sys/module/printk/parameters/time
echo 0 > $parameter
echo enabled 2>/dev/null > $parameter || true
cat $parameter
echo 1 > $parameter
