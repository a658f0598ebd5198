//! How a command ends: 0 good, 1 the objects or the call have errors, 2 wrong use.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong use: the command line, not the world.
    Usage(anyhow::Error),
    /// The objects, the call or the machine.
    Failed(anyhow::Error),
    /// As `Failed`, where everything has been said already.
    Said,
}

/// What every command returns.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    /// Wrong use, with what to do instead.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::Usage(anyhow::anyhow!("{message}"))
    }

    /// A failed command, with what to do.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self::Failed(anyhow::anyhow!("{message}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Says what is left to say and picks the exit code.
pub(crate) fn report(outcome: Outcome) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    say(&failure);
    match failure {
        Failure::Said | Failure::Failed(_) => ExitCode::from(1),
        Failure::Usage(_) => ExitCode::from(2),
    }
}

/// Says what went wrong, unless that has been done.
pub(crate) fn say(failure: &Failure) {
    let (Failure::Usage(error) | Failure::Failed(error)) = failure else { return };
    let style = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{style}error{style:#}: {error:#}");
}

/// A line that cannot be printed, on a full disk for one, ends the command as any failure does. That a reader had enough is
/// none.
pub(crate) fn fail_where_nothing_can_be_printed() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        match panic.payload_as_str().and_then(|said| said.strip_prefix("failed printing to stdout: ")) {
            Some(said) => {
                say(&Failure::failed(format!("cannot write to standard output: {said}")));
                std::process::exit(1);
            }
            None => usual(panic),
        }
    }));
}
