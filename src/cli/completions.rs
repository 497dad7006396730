//! `sorteo completions`: completions for a shell, made from the grammar.

use std::io::Write as _;

use anyhow::Context as _;

use super::failure::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sorteo completions bash > /etc/bash_completion.d/sorteo
  sorteo completions zsh > /usr/local/share/zsh/site-functions/_sorteo
  sorteo completions fish > ~/.config/fish/completions/sorteo.fish")]
pub(super) struct Args {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Writes them at once: clap itself would panic where nobody reads.
pub(super) fn run(args: &Args, mut grammar: clap::Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut grammar, "sorteo", &mut text);
    Ok(std::io::stdout().write_all(&text).context("the completions cannot be printed")?)
}
