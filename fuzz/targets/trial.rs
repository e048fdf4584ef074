//! A trial in a copy of this process, since the HDF5 library may crash or never end on a broken file. The program tries files of
//! others likewise, and seals its own.

/// Exit code of a panic: that is ours, not the library's.
const PANICKED: i32 = 77;
/// Of computing, however busy the machine is.
const MOST_MICROSECONDS: i64 = 300_000;

/// Whether `work` comes to an end; a panic is one.
pub fn survives(work: &dyn Fn()) -> bool {
    // SAFETY: libFuzzer runs cases on the one thread that matters; the child touches nothing that the parent has open.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "cannot fork");
    if child == 0 {
        // SAFETY: only this process's own handlers, limits and end; those of libFuzzer must not report the child's.
        unsafe {
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGFPE, libc::SIGILL, libc::SIGPROF] {
                libc::signal(signal, libc::SIG_DFL);
            }
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &none);
            let (zero, most) = (std::mem::zeroed(), libc::timeval { tv_sec: 0, tv_usec: MOST_MICROSECONDS });
            libc::setitimer(libc::ITIMER_REAL, &zero, std::ptr::null_mut());
            let limit = libc::itimerval { it_interval: zero.it_interval, it_value: most };
            libc::setitimer(libc::ITIMER_PROF, &limit, std::ptr::null_mut());
            // What the library writes in its last moments is of no use.
            libc::close(2);
        }
        // SAFETY: ends at once, without what would be run at exit.
        std::panic::set_hook(Box::new(|_| unsafe { libc::_exit(PANICKED) }));
        work();
        // SAFETY: as above.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: waits for the child alone.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {}
    libc::WIFEXITED(status)
}
