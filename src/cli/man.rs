//! `sorteo man`: the manual pages, generated from the same grammar as the help.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::failure::{EXIT_CODES, Failure};
use super::output::{print_bytes, say};
use crate::atomic_file;
use crate::config::settings::{
    AGENCY, AGENCY_ALIASES, Alias, CONFIG_VARIABLE, SERVE, SERVE_ALIASES, Setting, VARIABLE_PREFIX,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sorteo man | man -l -
  sorteo man --dir /usr/local/share/man/man1")]
pub(super) struct Args {
    /// Write the pages of all subcommands to this folder, created if missing
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, grammar: clap::Command) -> Result<(), Failure> {
    // The pages of `help` would add nothing to these.
    let mut command = grammar.disable_help_subcommand(true);
    command.build();
    match &args.dir {
        None => {
            let page = main_page(&command).context("the page cannot be generated")?;
            print_bytes(&page, "the page")?;
        }
        Some(folder) => {
            let pages = pages(&command, None).context("the pages cannot be generated")?;
            write(folder, &pages)?;
            say!("{} pages in {}", pages.len(), folder.display())?;
        }
    }
    Ok(())
}

/// The file name and the text of a page.
type Page = (String, Vec<u8>);

fn write(folder: &Path, pages: &[Page]) -> Result<(), Failure> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be written to", folder.display()))?;
    Ok(pages.iter().try_for_each(|(name, text)| atomic_file::write(&folder.join(name), text).map(drop))?)
}

/// Returns the page of a command, then those of all its subcommands.
fn pages(command: &clap::Command, above: Option<&str>) -> std::io::Result<Vec<Page>> {
    let name = match above {
        Some(above) => format!("{above}-{}", command.get_name()),
        None => command.get_name().to_owned(),
    };
    let page = if above.is_none() { main_page(command)? } else { page_of(command, &name)? };
    let mut all = vec![(format!("{name}.1"), page)];
    for below in command.get_subcommands() {
        all.append(&mut pages(below, Some(&name))?);
    }
    Ok(all)
}

/// Returns a page with the sections that every page begins with.
fn begin(command: &clap::Command, name: &str) -> std::io::Result<(Man, Vec<u8>)> {
    // The day of the build would make each build another. (No date at all would let
    // the version slip into its place.)
    let version = format!("sorteo {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone().name(name.to_owned()))
        .title(name.to_uppercase())
        .date(" ")
        .source(version)
        .manual("sorteo manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    Ok((man, page))
}

fn page_of(command: &clap::Command, name: &str) -> std::io::Result<Vec<u8>> {
    let (man, mut page) = begin(command, name)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (notes, examples) = after.split_once("Examples:\n").unwrap_or((&after, ""));
    section("NOTES", &paragraphs(notes), &mut page)?;
    section("EXAMPLES", &verbatim(examples), &mut page)?;
    section("SEE ALSO", Roff::new().text([bold("sorteo"), roman("(1)")]), &mut page)?;
    Ok(page)
}

fn main_page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let (man, mut page) = begin(command, command.get_name())?;
    man.render_subcommands_section(&mut page)?;
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (_, examples) = after.split_once("Examples:\n").unwrap_or_default();
    let examples = examples.split("\n\n").next().unwrap_or_default();
    section("EXAMPLES", &verbatim(examples), &mut page)?;
    let codes = EXIT_CODES.iter().map(|(code, meaning)| (code.to_string(), (*meaning).to_owned()));
    section("EXIT STATUS", &list(codes), &mut page)?;
    section("ENVIRONMENT", &list(environment()), &mut page)?;
    section(
        "FILES",
        &list(FILES.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned()))),
        &mut page,
    )?;
    Ok(page)
}

/// The files of a server, with the default `--database`.
const FILES: &[(&str, &str)] = &[
    ("sorteo.db", "The database, where --database names no other."),
    (
        "sorteo.db-wal, sorteo.db-shm",
        "SQLite's write-ahead log (WAL) and its index. They hold the latest writes while a server runs, or after it was killed, and belong to the database: never delete or copy one without the others.",
    ),
    (
        "sorteo.db.lock",
        "Locked by the server that runs on the database. The file stays when the server ends; the lock does not.",
    ),
    ("sorteo.toml", "Settings of a server, if --config names this file. sorteo.example.toml lists them all."),
];

/// Returns every variable that is read, with what it sets.
fn environment() -> Vec<(String, String)> {
    let ours = |settings: &'static [Setting], command: &'static str| {
        settings.iter().map(move |setting| (setting.variable(), format!("{} of {command}.", setting.flag())))
    };
    let aliases = |aliases: &'static [Alias], command: &'static str| {
        aliases.iter().map(move |alias| {
            let (ours, prefix) = (alias.key.to_uppercase(), VARIABLE_PREFIX);
            (alias.name.to_owned(), format!("Of {command}, if {prefix}{ours} is not set."))
        })
    };
    let mut all = vec![(CONFIG_VARIABLE.to_owned(), "--config of serve.".to_owned())];
    all.extend(ours(SERVE, "serve"));
    for (name, what) in ours(AGENCY, "upload") {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = known.replace("of serve.", "of serve and upload."),
            None => all.push((name, what)),
        }
    }
    all.extend(aliases(SERVE_ALIASES, "serve"));
    all.extend(aliases(AGENCY_ALIASES, "upload"));
    all.push(("NO_COLOR".to_owned(), "If set, no colours are used, not even on a terminal.".to_owned()));
    all
}

/// Writes a section, unless it is empty.
fn section(heading: &str, body: &Roff, page: &mut Vec<u8>) -> std::io::Result<()> {
    if *body == Roff::new() {
        return Ok(());
    }
    Roff::new().control("SH", [heading]).to_writer(page)?;
    body.to_writer(page)
}

fn list(entries: impl IntoIterator<Item = (String, String)>) -> Roff {
    let mut roff = Roff::new();
    for (name, what) in entries {
        roff.control("TP", []).text([bold(name)]).text([roman(what)]);
    }
    roff
}

fn paragraphs(text: &str) -> Roff {
    let mut roff = Roff::new();
    for (count, paragraph) in text.split("\n\n").map(str::trim).filter(|text| !text.is_empty()).enumerate() {
        if count > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(paragraph)]);
    }
    roff
}

/// Returns lines that are printed as they are.
fn verbatim(text: &str) -> Roff {
    let mut roff = Roff::new();
    if text.is_empty() {
        return roff;
    }
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
    roff
}
