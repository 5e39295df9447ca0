[ "$(stat -f -c %i /proc)" = 0 ] && echo 'no id' || echo 'an id'
