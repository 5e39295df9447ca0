cat /proc/sys/kernel/hung_task_detect_count 2>/dev/null || echo 'not there'
