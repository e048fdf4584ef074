//! Parse, run, exit code.

fn main() {
    let code = ddl::cli::run(std::env::args_os());
    std::process::exit(code);
}
