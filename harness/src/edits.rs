//! Small changes to the kernel's source that tests and benchmarks share, and how each can be seen from outside.

/// File, text, new text.
pub type Edit = (&'static str, &'static str, &'static str);

/// `cmdline_proc_show`: short, in one object; `/proc/cmdline` begins with `patched`.
pub const SHORT: Edit = (
    "fs/proc/cmdline.c",
    "\tseq_puts(m, saved_command_line);\n",
    "\tseq_puts(m, \"patched \");\n\tseq_puts(m, saved_command_line);\n",
);

/// `loadavg_proc_show`: `/proc/loadavg` begins with `patched`.
pub const LOADAVG: Edit = (
    "fs/proc/loadavg.c",
    "\tseq_printf(m, \"%lu.%02lu %lu.%02lu",
    "\tseq_puts(m, \"patched \");\n\tseq_printf(m, \"%lu.%02lu %lu.%02lu",
);

/// A read of exactly 4242 bytes fails with EPROTO in the new `pipe_read`, which tasks sleep in.
pub const PIPE: Edit = (
    "fs/pipe.c",
    "\t/* Null read succeeds. */\n",
    "\tif (total_len == 4242)\n\t\treturn -EPROTO;\n\t/* Null read succeeds. */\n",
);

/// `do_nanosleep`, in which whoever sleeps for a time is: nothing else than before happens.
pub const NANOSLEEP: Edit = (
    "kernel/time/hrtimer.c",
    "\tstruct restart_block *restart;\n\n\tdo {\n\t\tset_current_state(TASK_INTERRUPTIBLE|TASK_FREEZABLE);\n",
    "\tstruct restart_block *restart;\n\n\tdo {\n\t\tmb();\n\t\tset_current_state(TASK_INTERRUPTIBLE|TASK_FREEZABLE);\n",
);

/// The exit signal 63 is refused by the new `kernel_clone`; a task that waits in vfork(2) is inside of it.
pub const CLONE: Edit = (
    "kernel/fork.c",
    "\t * here has the advantage that we don't need to have a separate helper\n\t * to check for legacy clone().\n\t */\n",
    "\t * here has the advantage that we don't need to have a separate helper\n\t * to check for legacy clone().\n\t */\n\
     \tif (args->exit_signal == 63)\n\t\treturn -EPROTO;\n",
);

/// `__do_sys_sync` begins with a call, which cannot be executed elsewhere: it gets no dispatcher. What it does stays.
pub const SYNC: Edit = ("fs/sync.c", "\tksys_sync();\n\treturn 0;\n", "\tksys_sync();\n\tksys_sync();\n\treturn 0;\n");
