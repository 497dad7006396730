//! The program's first page of help: its subcommands by what they are for. clap
//! lists them in one row; here is which belongs where, and the page around it.

use clap::CommandFactory as _;
use clap::builder::styling::Style;

use super::Cli;

/// Headings with their subcommands. One that is in none is listed at the end.
const GROUPS: &[(&str, &[&str])] = &[
    ("Running", &["serve", "status", "demo"]),
    ("Agencies", &["upload", "winners"]),
    ("Draws", &["draw"]),
    ("Data", &["check", "backup", "restore", "export", "import", "generate"]),
    ("Operators and tools", &["config", "bench", "man", "completions", "help"]),
];
const OTHERS: &str = "Others";

/// Columns of a subcommand's name, with two spaces before and after it.
const NAME_WIDTH: usize = 15;

/// The whole grammar, with the grouped page.
pub(super) fn command() -> clap::Command {
    let mut command = Cli::command();
    // Only then it has `help` too.
    command.build();
    let page = page(&command);
    Cli::command().help_template(page)
}

fn page(command: &clap::Command) -> String {
    let (header, name) = (command.get_styles().get_header(), command.get_styles().get_literal());
    let mut page = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (heading, commands) in grouped(command) {
        page += &format!("\n{}\n", styled(&format!("{heading}:"), *header));
        for subcommand in commands {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            let padding = " ".repeat(NAME_WIDTH.saturating_sub(2 + subcommand.get_name().len()));
            page += &format!("  {}{padding}{about}\n", styled(subcommand.get_name(), *name));
        }
    }
    page + &format!("\n{}\n{{options}}{{after-help}}", styled("Options:", *header))
}

/// Coloured; clap takes the colours away where nobody sees them.
fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

/// The subcommands that there are, under their headings.
fn grouped(command: &clap::Command) -> Vec<(&'static str, Vec<&clap::Command>)> {
    let mut groups: Vec<_> = GROUPS
        .iter()
        .map(|(heading, names)| {
            let named = names.iter().filter_map(|name| command.find_subcommand(name));
            (*heading, named.collect::<Vec<_>>())
        })
        .collect();
    let placed = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others = command.get_subcommands().filter(|subcommand| !placed(subcommand.get_name()));
    groups.push((OTHERS, others.collect()));
    groups.retain(|(_, commands)| !commands.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn every_subcommand_is_under_one_heading_and_its_line_is_short() {
        let mut command = Cli::command();
        command.build();
        let groups = grouped(&command);
        assert!(groups.iter().all(|(heading, _)| *heading != OTHERS), "a subcommand has no heading");
        let listed: Vec<_> = groups.iter().flat_map(|(_, commands)| commands).collect();
        assert_eq!(listed.len(), command.get_subcommands().count());
        for subcommand in listed {
            let about = subcommand.get_about().expect("a subcommand says what it does").to_string();
            assert!(NAME_WIDTH + about.len() <= 80, "{about}");
            assert!(subcommand.get_name().len() + 4 <= NAME_WIDTH, "{}", subcommand.get_name());
        }
    }

    /// All subcommands but `help`, at any depth.
    fn leaves(command: &clap::Command) -> Vec<clap::Command> {
        if !command.has_subcommands() {
            return vec![command.clone()];
        }
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        below.flat_map(leaves).collect()
    }

    #[test]
    fn every_subcommand_shows_an_example_of_itself() {
        let mut command = Cli::command();
        command.build();
        for leaf in leaves(&command) {
            let name = leaf.get_bin_name().unwrap_or_default();
            let after = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = after.split_once("Examples:\n").unwrap_or_else(|| panic!("{name}: {after}"));
            assert!(examples.contains(name), "{name}: {examples}");
            assert!(after.lines().all(|line| line.chars().count() <= 80), "{name}: {after}");
        }
    }
}
