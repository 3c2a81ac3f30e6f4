//! The `kimiq` command: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    kimiq::cli::main()
}
