//! The program's first page of help, with the subcommands grouped by purpose. clap itself
//! would list them in one column.

use clap::CommandFactory;
use clap::builder::styling::Style;

/// Headings with their subcommands. Any other subcommand is listed at the end.
const GROUPS: &[(&str, &[&str])] = &[
    ("Running", &["serve", "status", "demo"]),
    ("Agencies", &["upload", "done", "winners"]),
    ("Draws", &["draw"]),
    ("Data", &["check", "backup", "restore", "export", "import", "generate"]),
    ("Operators and tools", &["config", "token", "bench", "man", "completions", "help"]),
];
pub(super) const OTHERS: &str = "Others";

/// Columns of a subcommand's name, with two spaces before and after it.
pub(super) const NAME_WIDTH: usize = 15;

/// Returns the whole grammar, with the grouped page.
pub(super) fn with_grouped_page<Grammar: CommandFactory>() -> clap::Command {
    let mut command = Grammar::command();
    // Only a built command has the subcommand `help`.
    command.build();
    let page = page(&command);
    Grammar::command().help_template(page)
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

/// Returns coloured text; clap removes the colours where there is no terminal.
fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

/// Returns the subcommands under their headings.
pub(super) fn grouped(command: &clap::Command) -> Vec<(&'static str, Vec<&clap::Command>)> {
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
