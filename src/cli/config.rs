//! `sorteo config`: the settings that `serve` would run with, and whether it would.

use std::io::Write as _;

use anyhow::Context as _;

use super::arguments::Sources;
use super::failure::Failure;
use super::open_files;
use super::output::say;
use crate::config::{ConfigError, Layers, ResolvedSetting, ServeConfig, Source, process_environment};
use sorteo_protocol::text::one_line;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print every setting of serve: its value and where it comes from
    #[command(after_help = "\
Takes every flag of serve, and reads the same variables and the same file.

Examples:
  sorteo config show --config sorteo.toml
  sorteo config show --json | jq .workers")]
    Show(ShowArgs),
    /// Report whether serve would accept its settings, and all that is wrong with them
    #[command(after_help = "\
Takes every flag of serve, and reads the same variables and the same file.
Prints OK and exits with 0, or exits with 2 if a flag is wrong, with 78 if a
variable or the file is. Opens no database and no port.

Examples:
  sorteo config check --config sorteo.toml
  sorteo config check --config new.toml && systemctl restart sorteo")]
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    sources: Sources,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    sources: Sources,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show(args),
        Command::Check(args) => check(&args.sources),
    }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let layers = args.sources.layers(&process_environment()?)?;
    let resolved = layers.resolved()?;
    if args.json {
        return Ok(say!("{}", json(&resolved).context("the settings have no JSON form")?)?);
    }
    let shown: Vec<[String; 3]> = resolved.iter().map(line).collect();
    let width = |column: usize| shown.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let (keys, values) = (width(0), width(1));
    for [key, value, source] in &shown {
        say!("{key:keys$}  {value:values$}  {source}")?;
    }
    Ok(())
}

/// Returns key, value and source for a person. A path may hold any character; here it is
/// one line.
fn line(resolved: &ResolvedSetting) -> [String; 3] {
    let value = resolved.value.as_ref().map_or("-".to_owned(), |value| one_line(&value.to_string()));
    let source = match (&resolved.value, &resolved.source) {
        (None, _) => format!("default: {}", resolved.setting.default_description()),
        (Some(_), source) => one_line(&source.to_string()),
    };
    [resolved.setting.key.to_owned(), value, source]
}

/// Returns a JSON object of objects, in the order of the table.
fn json(resolved: &[ResolvedSetting]) -> serde_json::Result<String> {
    #[derive(serde::Serialize)]
    struct SettingOutput<'a> {
        value: &'a Option<crate::config::settings::Value>,
        source: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<usize>,
    }
    let members: Result<Vec<String>, _> = resolved
        .iter()
        .map(|setting| {
            let (source, name, line) = match &setting.source {
                Source::Flag(flag) => ("flag", Some(flag.clone()), None),
                Source::Variable(name) => ("variable", Some(name.clone()), None),
                Source::File { path, line } => ("file", Some(path.display().to_string()), Some(*line)),
                Source::Default => ("default", None, None),
            };
            let value = serde_json::to_string(&SettingOutput { value: &setting.value, source, name, line })?;
            Ok(format!("\"{}\":{value}", setting.setting.key))
        })
        .collect();
    Ok(format!("{{{}}}", members?.join(",")))
}

fn check(sources: &Sources) -> Result<(), Failure> {
    let environment = process_environment()?;
    let (layers, mut problems) =
        Layers::gather_serve(&sources.flags, sources.config.as_deref(), &environment);
    problems.extend(layers.problems());
    if !problems.is_empty() {
        return Err(Failure::Configs(problems));
    }
    let config = ServeConfig::lower(&layers)?;
    if let Some(tls) = &config.tls {
        tls.load().map_err(ConfigError::from)?;
    }
    // Like serve, with the soft limit raised to the hard one.
    if let Some(warning) = open_files::warning(&config, open_files::raise_limit()) {
        // Standard error may be closed; serve logs the warning too.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    for open in config.open_doors() {
        let _ = writeln!(std::io::stderr(), "warning: {open}");
    }
    Ok(say!("OK")?)
}
