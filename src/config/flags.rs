//! Settings as flags: the side of the tables that clap sees.

use std::marker::PhantomData;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::setting::{Default, Form, Setting, Values};
use super::settings::{AGENCY, AGENCY_ID, DATABASE, SERVE, SERVER};

/// Which settings a command has as flags.
pub trait Table: Clone + std::fmt::Debug {
    /// The settings.
    const SETTINGS: &'static [Setting];
}

/// The flags of `serve`.
#[derive(Clone, Copy, Debug)]
pub enum Serve {}
/// The flags of `upload`.
#[derive(Clone, Copy, Debug)]
pub enum Agency {}
/// The flags of a command on a database.
#[derive(Clone, Copy, Debug)]
pub enum Database {}
/// The flags of a request to a server.
#[derive(Clone, Copy, Debug)]
pub enum AgencyQuestion {}

impl Table for Serve {
    const SETTINGS: &'static [Setting] = SERVE;
}
impl Table for Agency {
    const SETTINGS: &'static [Setting] = AGENCY;
}
impl Table for Database {
    const SETTINGS: &'static [Setting] = &[DATABASE.setting()];
}
impl Table for AgencyQuestion {
    const SETTINGS: &'static [Setting] = &[SERVER.setting(), AGENCY_ID.setting()];
}

/// The flags that were typed, with their values as they were typed.
#[derive(Clone, Debug)]
pub struct Flags<T>(Vec<(Setting, String)>, PhantomData<T>);

impl<T> Flags<T> {
    /// Returns these flags: none, or what a test needs.
    pub fn new(typed: impl IntoIterator<Item = (Setting, String)>) -> Self {
        Self(typed.into_iter().collect(), PhantomData)
    }

    /// Returns each flag's setting and text.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Setting, &str)> {
        self.0.iter().map(|(setting, text)| (setting, text.as_str()))
    }
}

impl<T: Table> clap::Args for Flags<T> {
    fn augment_args(command: Command) -> Command {
        command.args(T::SETTINGS.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Table> clap::FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // A flag that may be repeated is a list of what was typed.
        let typed = |key| Some(matches.get_many::<String>(key)?.cloned().collect::<Vec<_>>().join(","));
        Ok(Self::new(T::SETTINGS.iter().filter_map(|setting| Some((*setting, typed(setting.key)?)))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.append(&mut Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

fn argument(setting: &Setting) -> Arg {
    let (short, long) = help(setting);
    let hint = match setting.values {
        Values::Text(Form::Database | Form::File) => ValueHint::FilePath,
        Values::Text(Form::Address | Form::Addresses | Form::Hosts) => ValueHint::Hostname,
        _ => ValueHint::Other,
    };
    let argument = Arg::new(setting.key).long(setting.long()).value_name(setting.placeholder());
    let argument = argument.help(short).long_help(long).value_hint(hint);
    let argument = argument.value_parser(AsTyped(setting.words())).hide_possible_values(true);
    let argument = match setting.values {
        Values::Text(form) if form.is_list() => argument.action(ArgAction::Append),
        _ => argument,
    };
    match setting.group.heading() {
        Some(heading) => argument.help_heading(heading),
        None => argument,
    }
}

/// Returns the texts for `-h` and `--help`.
fn help(setting: &Setting) -> (String, String) {
    let mut meaning = setting.meaning.to_owned();
    if let Some(range) = setting.range() {
        // A list of words follows a colon; a range of numbers reads on.
        meaning += if setting.words().is_empty() { ", " } else { ": " };
        meaning += &range;
    }
    let default = match setting.default {
        Default::Required => String::new(),
        _ => format!(" [default: {}]", setting.default_description()),
    };
    let (short, variable) = (format!("{meaning}{default}"), setting.variable());
    let long = format!("{short} [variable: {variable}]");
    (short, long)
}

/// A parser that accepts any text: a wrong value is reported like one of the other layers.
/// Only completions need to know which words are valid.
#[derive(Clone, Copy, Debug)]
struct AsTyped(&'static [&'static str]);

impl TypedValueParser for AsTyped {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = || self.0.iter().map(PossibleValue::new);
        (!self.0.is_empty()).then(|| Box::new(words()) as Box<_>)
    }
}
