{ sleep 2; echo text; } | {
    first=$(stat -L -c %X /proc/self/fd/0)
    read text
    [ "$first" = "$(stat -L -c %X /proc/self/fd/0)" ] && echo 'time kept' || echo 'time changed'
}
