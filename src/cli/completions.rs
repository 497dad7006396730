//! `sorteo completions`: completions for a shell, generated from the grammar.

use super::failure::Failure;
use super::output::print_bytes;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sorteo completions bash > /etc/bash_completion.d/sorteo
  sorteo completions zsh > /usr/local/share/zsh/site-functions/_sorteo
  sorteo completions fish > ~/.config/fish/completions/sorteo.fish")]
pub(super) struct Args {
    /// Shell to print completions for
    shell: clap_complete::Shell,
}

/// Prints the completions. They are written at once: where standard output is closed, clap
/// itself would panic.
pub(super) fn run(args: &Args, mut grammar: clap::Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut grammar, "sorteo", &mut text);
    Ok(print_bytes(&text, "the completions")?)
}
