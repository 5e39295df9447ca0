//! What functions of the kernel do with an address they are given: keep it, take it back, or only look.
//!
//! Names and arguments are those of Linux 6.1 to 6.12 (include/linux/{workqueue,timer,rcupdate,interrupt,proc_fs}.h and so on).
//! A function that no table knows may keep it: that is a note, or a promise where what is handed over holds code.

/// What a function does with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The address is in the kernel's memory when it returns.
    Keeps,
    /// It looks, and forgets the address before it returns; or it is how the kernel is made to forget it.
    Forgets,
    /// No table knows it.
    Unknown,
}

/// What is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A string.
    Text,
    /// A function.
    Code,
    /// Anything else.
    Data,
}

/// Functions that copy a structure they are given, with the functions in it: what its caller had on its stack stays in the kernel.
const COPY: &[&str] = &[
    // net/netlink/af_netlink.c (netlink_dump_control, netlink_kernel_cfg), net/ipv4/udp_tunnel_core.c
    "__netlink_dump_start",
    "__netlink_kernel_create",
    "setup_udp_tunnel_sock",
    // lib/rhashtable.c (rhashtable_params)
    "rhashtable_init",
    "rhltable_init",
    // kernel/fork.c (kernel_clone_args)
    "kernel_clone",
    "kernel_thread",
    "user_mode_thread",
    // drivers/nvmem, drivers/base/{regmap,platform.c}, drivers/clk, drivers/power/supply, drivers/leds, drivers/rtc
    "nvmem_register",
    "devm_nvmem_register",
    "__regmap_init",
    "__devm_regmap_init",
    "platform_device_register_full",
    "clk_hw_register",
    "clk_register",
    "power_supply_register",
    "devm_power_supply_register",
    // drivers/dma-buf/dma-buf.c, block/blk-integrity.c
    "dma_buf_export",
    "blk_integrity_register",
];

/// Does it copy the functions of a structure?
pub fn copies(name: &str) -> bool {
    COPY.contains(&name)
}

/// Functions that keep arguments, and which, counted from 0.
const KEEPS: &[(&str, &[u8])] = &[
    // kernel/workqueue.c, kernel/kthread.c
    ("queue_work_on", &[2]),
    ("queue_work_node", &[2]),
    ("queue_delayed_work_on", &[2]),
    ("mod_delayed_work_on", &[2]),
    ("queue_rcu_work", &[1]),
    ("kthread_queue_work", &[1]),
    ("kthread_queue_delayed_work", &[1]),
    ("kthread_mod_delayed_work", &[1]),
    ("kthread_create_on_node", &[0, 1]),
    ("kthread_create_on_cpu", &[0, 1]),
    ("async_schedule_node", &[0, 1]),
    ("async_schedule_node_domain", &[0, 1, 3]),
    ("stop_one_cpu_nowait", &[1, 2, 3]),
    ("task_work_add", &[1]),
    ("smp_call_function_single_async", &[1]),
    ("irq_work_queue", &[0]),
    ("irq_work_queue_on", &[0]),
    // kernel/time/timer.c, hrtimer.c
    ("init_timer_key", &[1]),
    ("timer_init_key", &[1]),
    ("add_timer", &[0]),
    ("add_timer_on", &[0]),
    ("add_timer_local", &[0]),
    ("add_timer_global", &[0]),
    ("mod_timer", &[0]),
    ("mod_timer_pending", &[0]),
    ("timer_reduce", &[0]),
    ("hrtimer_setup", &[1]),
    ("hrtimer_start_range_ns", &[0]),
    // kernel/softirq.c, kernel/irq/manage.c
    ("tasklet_init", &[1, 2]),
    ("tasklet_setup", &[1]),
    ("__tasklet_schedule", &[0]),
    ("__tasklet_hi_schedule", &[0]),
    ("request_threaded_irq", &[1, 2, 4, 5]),
    ("request_any_context_irq", &[1, 3, 4]),
    ("devm_request_threaded_irq", &[2, 3, 5, 6]),
    // kernel/rcu
    ("call_rcu", &[0, 1]),
    ("call_rcu_hurry", &[0, 1]),
    ("call_rcu_tasks", &[0, 1]),
    ("call_rcu_tasks_trace", &[0, 1]),
    ("call_srcu", &[0, 1, 2]),
    // kernel/sched/wait.c
    ("add_wait_queue", &[1]),
    ("add_wait_queue_exclusive", &[1]),
    ("add_wait_queue_priority", &[1]),
    // fs/proc, fs/debugfs, fs/sysfs, fs/seq_file.c, fs/anon_inodes.c, fs/char_dev.c
    ("proc_create", &[3]),
    ("proc_create_data", &[3, 4]),
    ("proc_create_single_data", &[3, 4]),
    ("proc_create_seq_private", &[3, 5]),
    ("proc_create_net_data", &[3, 5]),
    ("proc_create_net_single", &[3, 4]),
    ("debugfs_create_file", &[3, 4]),
    ("debugfs_create_file_unsafe", &[3, 4]),
    ("sysfs_create_file_ns", &[1]),
    ("sysfs_create_files", &[1]),
    ("sysfs_create_group", &[1]),
    ("sysfs_create_groups", &[1]),
    ("sysfs_create_bin_file", &[1]),
    ("device_create_file", &[1]),
    ("kobject_init", &[0, 1]),
    ("kobject_init_and_add", &[0, 1, 2]),
    ("kobject_add", &[0, 1]),
    ("cdev_init", &[1]),
    ("cdev_add", &[0]),
    ("seq_open", &[1]),
    ("seq_open_private", &[1]),
    ("__seq_open_private", &[1]),
    ("single_open", &[1, 2]),
    ("single_open_size", &[1, 2]),
    ("anon_inode_getfd", &[1, 2]),
    ("anon_inode_getfile", &[1, 2]),
    ("alloc_file_pseudo", &[4]),
    // lib/xarray.c, radix-tree.c, idr.c, rbtree.c, llist.c
    ("xa_store", &[2]),
    ("__xa_store", &[2]),
    ("__xa_insert", &[2]),
    ("__xa_alloc", &[2]),
    ("__xa_cmpxchg", &[3]),
    ("radix_tree_insert", &[2]),
    ("idr_alloc", &[1]),
    ("idr_alloc_u32", &[1]),
    ("idr_alloc_cyclic", &[1]),
    ("idr_replace", &[1]),
    ("rb_insert_color", &[0]),
    ("llist_add_batch", &[0, 1]),
    // kernel/static_call_inline.c, drivers/dma-buf/dma-fence.c
    ("__static_call_update", &[2]),
    // fs/ext4/super.c (save_error_info keeps the name of the function), net/core/dev.c, net/core/net-sysfs.c
    ("__ext4_error", &[1]),
    ("__ext4_error_inode", &[1]),
    ("__ext4_error_file", &[1]),
    ("__ext4_std_error", &[1]),
    ("__ext4_grp_locked_error", &[0]),
    ("netdev_rx_handler_register", &[1, 2]),
    ("netdev_set_default_ethtool_ops", &[1]),
    ("netdev_class_create_file_ns", &[0]),
    // fs/aio.c, lib/percpu-refcount.c
    ("kiocb_set_cancel_fn", &[1]),
    ("percpu_ref_kill_and_confirm", &[1]),
    ("dma_fence_init", &[1, 2]),
    ("dma_fence_add_callback", &[1, 2]),
    // mm/slab_common.c (constructors), mm/mempool.c, mm/shrinker.c
    ("kmem_cache_create", &[4]),
    ("kmem_cache_create_usercopy", &[6]),
    ("mempool_create", &[1, 2, 3]),
    ("mempool_create_node", &[1, 2, 3]),
    ("mempool_init", &[2, 3, 4]),
    ("mempool_init_node", &[2, 3, 4]),
    // drivers/base: devres.c, class.c, core.c, component.c
    ("devm_add_action", &[1, 2]),
    ("__devm_add_action", &[1, 2, 3]),
    ("__devres_alloc_node", &[0, 3]),
    ("devres_add", &[1]),
    ("__class_create", &[1, 2]),
    ("class_create", &[0]),
    ("class_create_file_ns", &[1]),
    ("bus_create_file", &[1]),
    ("driver_create_file", &[1]),
    ("device_create_bin_file", &[1]),
    ("device_add", &[0]),
    ("device_create", &[3]),
    ("device_create_with_groups", &[3, 4]),
    ("component_add", &[1]),
    ("cdev_device_add", &[0, 1]),
    ("dev_pm_domain_set", &[1]),
    ("request_firmware_nowait", &[5, 6]),
    // net/core/dev.c, net/ipv4/protocol.c, net/core/sock.c
    ("netif_napi_add_weight", &[1, 2]),
    ("netif_napi_add_weight_locked", &[1, 2]),
    ("dev_add_pack", &[0]),
    ("dev_add_offload", &[0]),
    ("inet_add_protocol", &[0]),
    ("inet6_add_protocol", &[0]),
    ("inet_add_offload", &[0]),
    ("inet6_add_offload", &[0]),
    ("sk_alloc", &[3]),
    ("phy_connect", &[2]),
    ("phy_connect_direct", &[2]),
    // kernel/events/core.c, kernel/livepatch/core.c, kernel/cpu.c, kernel/irq
    ("perf_event_create_kernel_counter", &[3, 4]),
    ("klp_enable_patch", &[0]),
    ("__cpuhp_setup_state", &[1, 3, 4]),
    ("__cpuhp_setup_state_cpuslocked", &[1, 3, 4]),
    ("irq_set_chained_handler_and_data", &[1, 2]),
    ("__irq_set_handler", &[1, 3]),
    ("irq_set_affinity_notifier", &[1]),
    ("__request_percpu_irq", &[1, 3, 4]),
    ("pci_request_irq", &[2, 3, 4]),
    ("devm_request_any_context_irq", &[2, 4, 5]),
    // kernel/workqueue.c, kernel/umh.c, kernel/time
    ("execute_in_process_context", &[0, 1]),
    ("call_usermodehelper_setup", &[4, 5, 6]),
    ("alarm_init", &[0, 2]),
    ("alarm_start", &[0]),
    ("alarm_start_relative", &[0]),
    ("timerqueue_add", &[1]),
    // fs/debugfs/file.c, fs/kernfs, fs/iomap, fs/direct-io.c, security/security.c
    ("debugfs_create_u8", &[3]),
    ("debugfs_create_u16", &[3]),
    ("debugfs_create_u32", &[3]),
    ("debugfs_create_u64", &[3]),
    ("debugfs_create_x8", &[3]),
    ("debugfs_create_x16", &[3]),
    ("debugfs_create_x32", &[3]),
    ("debugfs_create_x64", &[3]),
    ("debugfs_create_ulong", &[3]),
    ("debugfs_create_size_t", &[3]),
    ("debugfs_create_atomic_t", &[3]),
    ("debugfs_create_bool", &[3]),
    ("debugfs_create_str", &[3]),
    ("debugfs_create_blob", &[3]),
    ("debugfs_create_devm_seqfile", &[3]),
    ("proc_create_net_data_write", &[3, 4, 6]),
    ("proc_create_net_single_write", &[3, 4, 5]),
    ("__kernfs_create_file", &[6]),
    ("kernfs_create_root", &[0, 2]),
    ("kset_create_and_add", &[1]),
    ("iomap_dio_rw", &[3]),
    ("__iomap_dio_rw", &[3]),
    ("__blockdev_direct_IO", &[5]),
    ("security_add_hooks", &[0]),
    ("cgroup_add_dfl_cftypes", &[1]),
    ("cgroup_add_legacy_cftypes", &[1]),
    // lib: klist.c, plist.c, rbtree.c, percpu_counter.c, percpu-refcount.c
    ("klist_init", &[1, 2]),
    ("klist_add_tail", &[0]),
    ("klist_add_head", &[0]),
    ("plist_add", &[0]),
    ("__rb_insert_augmented", &[0, 2]),
    ("percpu_ref_init", &[1]),
    ("__percpu_counter_init", &[0]),
    ("__percpu_counter_init_many", &[0]),
    // drivers/acpi/acpica, drivers/base/regmap, drivers/usb/core
    ("acpi_install_notify_handler", &[2, 3]),
    ("acpi_install_gpe_handler", &[3, 4]),
    ("acpi_install_fixed_event_handler", &[1, 2]),
    ("acpi_install_address_space_handler", &[2, 3, 4]),
    ("__regmap_init", &[1, 2]),
    ("usb_submit_urb", &[0]),
];

/// Words of names that say that something is taken back, or only looked at: `cancel_delayed_work_sync`, `del_timer`.
const TAKES_BACK: &[&str] = &[
    "unregister",
    "deregister",
    "cancel",
    "flush",
    "del",
    "delete",
    "remove",
    "shutdown",
    "kill",
    "busy",
    "pending",
    "disable",
];

/// Beginnings of names of functions that print, compare, copy or parse text, or only report a place. The names of locks and
/// their class keys are lockdep's, which forgets those of a module that goes (lockdep_free_key_range).
const LOOKS: &[&str] = &[
    "_printk",
    "printk",
    "vprintk",
    "__warn_printk",
    "warn_slowpath",
    "_dev_",
    "dev_printk",
    "dev_err_probe",
    "dev_set_name",
    "netdev_emerg",
    "netdev_alert",
    "netdev_crit",
    "netdev_err",
    "netdev_warn",
    "netdev_notice",
    "netdev_info",
    "netdev_printk",
    "panic",
    "seq_put",
    "seq_print",
    "seq_write",
    "seq_vprintf",
    "seq_escape",
    "snprintf",
    "scnprintf",
    "vsnprintf",
    "vscnprintf",
    "sprintf",
    "vsprintf",
    "kasprintf",
    "kvasprintf",
    "sysfs_emit",
    "sysfs_streq",
    "sysfs_match_string",
    "__sysfs_match_string",
    "sscanf",
    "vsscanf",
    "kstrdup",
    "kstrndup",
    "kstrto",
    "strcmp",
    "strcase",
    "strcat",
    "strchr",
    "strcpy",
    "strcspn",
    "strim",
    "strl",
    "strn",
    "strpbrk",
    "strrchr",
    "strscpy",
    "strsep",
    "strspn",
    "strstr",
    "simple_str",
    "match_string",
    "match_token",
    "memcmp",
    "memchr",
    "bcmp",
    "print_",
    "trace_seq_",
    "audit_log",
    "__dynamic_",
    "___ratelimit",
    "__might_",
    "__list_add_valid",
    "__list_del_entry_valid",
    "lockdep_",
    "__mutex_init",
    "__init_rwsem",
    "__init_waitqueue_head",
    "hrtimer_init",
    "__init_swait_queue_head",
    "__raw_spin_lock_init",
    "__rt_mutex_init",
    "__ext4_msg",
    "__ext4_warning",
    "ext4_msg",
    "bpf_log",
    "kobject_set_name",
    "__request_module",
    "alloc_workqueue",
    "static_key_",
];

/// What the function `name` does with its argument number `argument`.
pub fn effect(name: &str, argument: Option<u8>, what: What) -> Effect {
    // They call what they are given before they return, and keep the name of a declaration only.
    if lpbuild_abi::FOR_AUTHORS.contains(&name) {
        return Effect::Forgets;
    }
    if let Some((_, kept)) = KEEPS.iter().find(|(n, _)| *n == name) {
        // One on the stack is the seventh or a later one.
        return match kept.iter().any(|k| argument.map_or(*k > 5, |a| a == *k)) {
            true => Effect::Keeps,
            false if what == What::Text => Effect::Forgets,
            false => Effect::Unknown,
        };
    }
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    // Whoever gets a function calls it, whatever it is called itself.
    if what != What::Code && (has(TAKES_BACK) || LOOKS.iter().any(|begin| name.starts_with(begin))) {
        return Effect::Forgets;
    }
    // register_reboot_notifier, misc_register, nf_register_net_hook. Their names are mostly copied.
    if has(&["register"]) && what != What::Text {
        return Effect::Keeps;
    }
    Effect::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_and_what_does_not() {
        for (name, argument, what, wanted) in [
            ("queue_delayed_work_on", 2, What::Data, Effect::Keeps),
            ("queue_delayed_work_on", 1, What::Data, Effect::Unknown),
            ("cancel_delayed_work_sync", 0, What::Data, Effect::Forgets),
            ("register_reboot_notifier", 0, What::Data, Effect::Keeps),
            ("unregister_reboot_notifier", 0, What::Data, Effect::Forgets),
            ("atomic_notifier_chain_register", 1, What::Data, Effect::Keeps),
            ("register_chrdev", 1, What::Text, Effect::Unknown),
            ("request_threaded_irq", 4, What::Text, Effect::Keeps),
            ("_printk", 0, What::Text, Effect::Forgets),
            ("netdev_rx_handler_register", 1, What::Data, Effect::Keeps),
            ("netdev_err", 1, What::Text, Effect::Forgets),
            ("__ext4_error_inode", 1, What::Text, Effect::Keeps),
            ("kiocb_set_cancel_fn", 1, What::Data, Effect::Keeps),
            ("sort", 3, What::Code, Effect::Unknown),
            ("cancel_all", 0, What::Code, Effect::Unknown),
            ("mutex_lock", 0, What::Data, Effect::Unknown),
        ] {
            assert_eq!(effect(name, Some(argument), what), wanted, "{name} {argument}");
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        for (name, kept) in KEEPS {
            let there = KEEPS.iter().filter(|(n, _)| n == name).count();
            assert_eq!(there, 1, "{name}");
            assert!(!kept.is_empty() && kept.is_sorted(), "{name}");
        }
    }
}
