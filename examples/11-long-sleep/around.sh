# Somebody who sleeps in the function for good.
sleep 100000 | cat > /dev/null &
