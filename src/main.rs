//! Parse, run, exit code.

/// Runs before libraries start up and before `main`: what else a signal does at that moment is end the process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[used]
// SAFETY: the function sets a signal's handler by a system call, and needs nothing that starts up later.
#[unsafe(link_section = ".preinit_array")]
static FIRST: extern "C" fn() = ddl::train::signal::remember_warnings;

fn main() {
    let code = ddl::cli::run(std::env::args_os());
    std::process::exit(code);
}
