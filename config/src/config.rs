//! Loading: from a path to policy and wiring, or to all that is wrong.
//!
//! **Invariant:** a floor is entered only when the one below it has no error, so that no problem is the echo of
//! another one.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use lifeboat_core::names::AgentName;
use lifeboat_core::policy::Policy;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeTable;

use crate::document::{Agent, Document};
use crate::problem::{Found, Problem, Problems};
use crate::rule::Rule;
use crate::source::Source;
use crate::wiring::Wiring;
use crate::{policy, rules, shape};

/// What the operator wrote, as values.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// All that decisions depend on.
    pub policy: Policy,
    /// Which adapter is where.
    pub wiring: Wiring,
}

/// A document that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Policy and wiring.
    pub config: Config,
    /// The document with all defaults filled in.
    pub document: Document,
    /// What an operator will be sorry about one day; may be empty.
    pub warnings: Problems,
    pub(crate) source: Source,
}

impl Config {
    /// Reads the file at `path`, at most 1 MiB, and checks it. Nothing else is touched.
    ///
    /// # Errors
    ///
    /// All problems of the first floor that has an error, with the warnings found so far.
    pub fn load(path: &Path) -> Result<Loaded, Problems> {
        check(Source::read(path)?)
    }

    /// Checks `text`; problems name it `name`.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
        check(Source::new(name, text))
    }
}

/// An agent, as far as it is known before the others are: with no public key there is no list of agents yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// How it signs.
    pub name: AgentName,
    /// File with its key.
    pub key_file: PathBuf,
}

impl Signer {
    /// Reads `[agent]` of the file at `path`, whatever else is in the file or is missing there.
    ///
    /// # Errors
    ///
    /// All problems of the file, when `[agent]` itself cannot be understood.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        #[derive(Deserialize)]
        struct Beginning {
            agent: Agent,
        }
        let source = Source::read(path)?;
        match toml::from_str::<Beginning>(&source.text) {
            Ok(Beginning { agent }) => {
                Ok(Self { name: AgentName::new(agent.name.as_str()), key_file: agent.key_path() })
            }
            // Two readings of one table: what one refuses, the other one can explain.
            Err(error) => match check(source.clone()) {
                Err(problems) => Err(problems),
                Ok(_) => Err(Problems::new(source, vec![syntax(&error)])),
            },
        }
    }
}

fn check(source: Source) -> Result<Loaded, Problems> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(crate::schema);
    let root = parse(&source)?;
    let mut found = Found::default();
    shape::check(&SCHEMA, &root, &mut found);
    if found.any_error() {
        return Err(found.into_problems(source));
    }
    let document = match Document::deserialize(toml::Deserializer::from(root.clone())) {
        Ok(document) => document,
        // Only if schema and types differ, which the tests exclude; still a clear refusal.
        Err(error) => {
            found.add(Problem { rule: Rule::WrongType, span: error.span(), ..syntax(&error) });
            return Err(found.into_problems(source));
        }
    };
    rules::check(&document, root.get_ref(), &mut found);
    let failed = found.any_error();
    let problems = found.into_problems(source.clone());
    if failed {
        return Err(problems);
    }
    let config = Config { policy: policy::of(&document), wiring: Wiring::of(&document) };
    Ok(Loaded { config, document, warnings: problems, source })
}

fn syntax(error: &toml::de::Error) -> Problem {
    Problem {
        rule: Rule::Syntax,
        message: error.message().trim().to_owned(),
        help: "the language is TOML: https://toml.io".to_owned(),
        span: error.span(),
    }
}

/// Floor two. Of each line only the first problem is kept: the others are its echo.
fn parse(source: &Source) -> Result<Spanned<DeTable<'_>>, Problems> {
    let first = match DeTable::parse(&source.text) {
        Ok(root) => return Ok(root),
        Err(first) => first,
    };
    // Going on after an error costs memory for each one; a page of text that is not TOML has one a line.
    const RECOVERED: usize = 1 << 16;
    let errors =
        if source.text.len() > RECOVERED { vec![first] } else { DeTable::parse_recoverable(&source.text).1 };
    let (mut found, mut last) = (Found::default(), None);
    for error in errors {
        let problem = syntax(&error);
        let line = Some(problem.span.as_ref().map(|span| source.position(span.start).line));
        if line != last {
            found.add(problem);
        }
        last = line;
    }
    Err(found.into_problems(source.clone()))
}
