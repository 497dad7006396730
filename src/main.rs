//! The program `sorteo`: see [`sorteo::cli`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sorteo::cli::main()
}
