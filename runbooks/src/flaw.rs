//! What can be wrong with a page, as a person reads it: a sentence, the place, the line with a caret.
//!
//! **Invariant:** a flaw is about one place; what is shown of it is one line of the page, cut to [`WIDTH`] columns.

use std::ops::Range;

use thiserror::Error;

use crate::page::{Deed, Fact, Kind};

/// How many columns of a line are shown at most.
const WIDTH: usize = 160;

/// One thing that is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {kind}")]
pub struct Flaw {
    /// The line it is on, from 1.
    pub line: usize,
    /// The column where it begins, in characters, from 1.
    pub column: usize,
    /// How many characters of the line it is about, 1 or more.
    pub length: usize,
    /// What is wrong.
    pub kind: FlawKind,
}

/// The ways a page is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlawKind {
    /// The text is no runbook, or a part of it is no part of one.
    #[error("{problem}")]
    Unreadable {
        /// What the reader said.
        problem: String,
    },
    /// There is nothing to do.
    #[error("the page has no steps")]
    Empty,
    /// A page of one kind that takes another name: nobody would find it.
    #[error("a page of kind \"{kind}\" must be named \"{kind}\", not \"{name}\"")]
    Misnamed {
        /// What it is named.
        name: String,
        /// Its kind.
        kind: Kind,
    },
    /// A text that says nothing.
    #[error("\"{key}\" is empty")]
    Blank {
        /// Which.
        key: &'static str,
    },
    /// A deadline that no run could keep.
    #[error("a deadline of 0 gives up every run")]
    NoTime,
    /// Something that a page of this kind cannot do without.
    #[error("a {kind} page must have a step that does \"{deed}\"")]
    Missing {
        /// The kind of page.
        kind: Kind,
        /// What is not done.
        deed: Deed,
    },
    /// A name that cannot be typed on a command line.
    #[error("a step's name is 1 to 63 letters, digits, \"-\" and \"_\", not \"{step}\"")]
    BadName {
        /// The name.
        step: String,
    },
    /// Two steps have one name.
    #[error("step \"{step}\" has the name of an earlier step")]
    Twice {
        /// The name.
        step: String,
    },
    /// A length of time that is none.
    #[error("step \"{step}\" has a {key} of 0")]
    Zero {
        /// The step.
        step: String,
        /// Which length.
        key: &'static str,
    },
    /// No attempt is ever made.
    #[error("step \"{step}\" has no attempts; 1 is the least")]
    NoAttempts {
        /// The step.
        step: String,
    },
    /// A fact given by a step that does not make it true.
    #[error("step \"{step}\" cannot give \"{fact}\"")]
    WrongGift {
        /// The step.
        step: String,
        /// What it claims to give.
        fact: Fact,
    },
    /// A need that no earlier step gives.
    #[error("step \"{step}\" needs \"{fact}\", which no step before it gives")]
    UnmetNeed {
        /// The step.
        step: String,
        /// What it needs.
        fact: Fact,
    },
    /// A need whose giver may not be in the plan.
    #[error(
        "step \"{step}\" needs \"{fact}\", but step \"{giver}\", which gives it, may be left out by its `when`"
    )]
    UnsureNeed {
        /// The step.
        step: String,
        /// What it needs.
        fact: Fact,
        /// Who gives it, at times.
        giver: String,
    },
    /// A need that a deed always has, whatever the page's author thinks.
    #[error("step \"{step}\" {does}, and must need \"{fact}\"")]
    NeedLeftOut {
        /// The step.
        step: String,
        /// What it does, in a word or two.
        does: &'static str,
        /// What it must need.
        fact: Fact,
    },
    /// An order that refers to nothing.
    #[error("step \"{step}\" follows \"{other}\", which is no step of the page")]
    AfterUnknown {
        /// The step.
        step: String,
        /// What it is to follow.
        other: String,
    },
    /// An order against the order of the page.
    #[error("step \"{step}\" follows \"{other}\", which stands below it")]
    AfterLater {
        /// The step.
        step: String,
        /// What it is to follow.
        other: String,
    },
    /// Steps that wait for each other.
    #[error("{steps} can never start: each waits for the next, and the last for the first")]
    Cycle {
        /// Their names, in quotes.
        steps: String,
    },
    /// A step that no run ever comes to.
    #[error("step \"{step}\" is never done: {why}")]
    Unreachable {
        /// The step.
        step: String,
        /// Why not.
        why: String,
    },
    /// A group without company.
    #[error("step \"{step}\" is alone in the parallel group \"{group}\"")]
    LoneGroup {
        /// The step.
        step: String,
        /// The group.
        group: String,
    },
    /// A group with something in between.
    #[error("step \"{step}\" stands apart from the other steps of the parallel group \"{group}\"")]
    SplitGroup {
        /// The step.
        step: String,
        /// The group.
        group: String,
    },
    /// Something that is under way, perhaps, while the promotion is.
    #[error("step \"{step}\" may be under way beside the promotion; it must stand before or after it")]
    BesidePromotion {
        /// The step.
        step: String,
    },
    /// A promotion from which the run would believe it can turn back.
    #[error("step \"{step}\" promotes, and must be the point of no return")]
    PromotionNotFinal {
        /// The step.
        step: String,
    },
    /// A point of no return that would let a run pass by the questions before the promotion.
    #[error("step \"{step}\" cannot be the point of no return; only the promotion is")]
    ReturnClosed {
        /// The step.
        step: String,
    },
    /// A step that the kind cannot do without, and that may be left out.
    #[error("step \"{step}\" does \"{deed}\", and must be done whatever the conditions")]
    MayBeLeftOut {
        /// The step.
        step: String,
        /// What it does.
        deed: Deed,
    },
    /// A deed of another kind of page.
    #[error("step \"{step}\" does \"{deed}\", which has no place in a {kind} page")]
    Misplaced {
        /// The step.
        step: String,
        /// What it does.
        deed: Deed,
        /// The kind of page.
        kind: Kind,
    },
    /// A step of a failover that could not be done when it is needed.
    #[error("step \"{step}\" depends on the region that is lost: {what}")]
    NeedsLost {
        /// The step.
        step: String,
        /// In which way.
        what: &'static str,
    },
    /// Something that is done once.
    #[error("step \"{step}\" does \"{deed}\" again; a page does it once")]
    Again {
        /// The step.
        step: String,
        /// What it does.
        deed: Deed,
    },
    /// A report that something would come after.
    #[error("step \"{step}\" reports, and must follow every other step; \"{other}\" may still be under way")]
    NotLast {
        /// The step.
        step: String,
        /// What it does not follow.
        other: String,
    },
    /// A way back that no run would go.
    #[error("step \"{step}\" does not stand before the promotion, so that its undo would never be done")]
    UndoTooLate {
        /// The step.
        step: String,
    },
    /// A way back that is none.
    #[error(
        "step \"{step}\" cannot be taken back by \"{deed}\"; \"lift\", \"run\", \"http\" and \"sql\" take back"
    )]
    BadUndo {
        /// The step.
        step: String,
        /// What was to take it back.
        deed: Deed,
    },
    /// A planned fence that would stay.
    #[error("step \"{step}\" fences in a planned move, and must have undo = {{ do = \"lift\" }}")]
    NoLift {
        /// The step.
        step: String,
    },
    /// A fence lifted where it must stay, or where there is none.
    #[error("step \"{step}\" must not lift: only the fence of a planned move is lifted, as its undo")]
    StrayLift {
        /// The step.
        step: String,
    },
    /// A placeholder that stands for nothing.
    #[error(
        "step \"{step}\" says \"{placeholder}\", which stands for nothing; \
         {{workload}}, {{run}}, {{epoch}}, {{from}} and {{to}} do"
    )]
    Placeholder {
        /// The step.
        step: String,
        /// As written, with its braces.
        placeholder: String,
    },
    /// An operand that says nothing.
    #[error("step \"{step}\": \"{key}\" is empty")]
    EmptyOperand {
        /// The step.
        step: String,
        /// Which operand.
        key: &'static str,
    },
    /// An environment variable that no process can have.
    #[error("step \"{step}\": \"{name}\" cannot be the name of an environment variable")]
    BadVariable {
        /// The step.
        step: String,
        /// Its name.
        name: String,
    },
    /// An address that no request can be sent to.
    #[error("step \"{step}\": a url begins with http:// or https:// and names a host")]
    BadUrl {
        /// The step.
        step: String,
    },
    /// A method that is no word of HTTP (RFC 9110, section 9.1).
    #[error("step \"{step}\": \"{method}\" is no method; methods are capital letters")]
    BadMethod {
        /// The step.
        step: String,
        /// The method.
        method: String,
    },
    /// A status that no answer has (RFC 9110, section 15).
    #[error("step \"{step}\": {status} is no status; statuses are 100 to 599")]
    BadStatus {
        /// The step.
        step: String,
        /// The status.
        status: u16,
    },
    /// Two questions where one is asked.
    #[error("step \"{step}\" asks by itself: its question is with.text, not \"approve\"")]
    AskedTwice {
        /// The step.
        step: String,
    },
}

impl Flaw {
    /// A flaw at these bytes of the text.
    pub(crate) fn at(text: &str, span: Range<usize>, kind: FlawKind) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let fault = text.get(span).and_then(|fault| fault.lines().next()).unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            length: fault.chars().count().max(1),
            kind,
        }
    }

    /// The flaw as a person reads it: the sentence, the place, the line with a caret under what is wrong. `name`
    /// is the file's name, `text` the page it was found in.
    pub fn render(&self, name: &str, text: &str) -> String {
        let Self { line, column, length, kind } = self;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        // A long line is shown from a place that keeps the fault in sight.
        let from = if column + length > WIDTH { column.saturating_sub(WIDTH / 4) } else { 0 };
        let excerpt: String = text
            .lines()
            .nth(line - 1)
            .unwrap_or_default()
            .chars()
            .skip(from)
            .take(WIDTH)
            .map(shown)
            .collect();
        let before = column - 1 - from;
        let carets = " ".repeat(before) + &"^".repeat((*length).min(WIDTH - before));
        format!(
            "error: {kind}\n{margin}--> {name}:{line}:{column}\n{margin} |\n{number} | {}\n{margin} | {carets}\n",
            excerpt.trim_end()
        )
    }
}
