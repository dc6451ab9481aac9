//! `latchkey-proxy`: see `--help`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let settings = latchkey_proxy::settings::Settings::parse();
    match latchkey_proxy::app::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            latchkey_proxy::app::complain(&error);
            ExitCode::FAILURE
        }
    }
}
