//! Runs the cases of a scenario in turn, round after round, and shows their medians side by side.
//!
//! A disturbance of one second then affects all cases alike, and shows in the spread.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::{Machine, OTHERS};

/// The options of the command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One short round each: to see that everything runs, not how fast.
    pub quick: bool,
    /// Only the scenarios whose names begin with one of these.
    pub only: Vec<String>,
}

/// The scenarios of one run, and their results.
#[derive(Debug)]
pub struct Harness {
    options: Options,
    tables: Vec<Value>,
}

/// One system under test. A sample is one figure for each column.
pub struct Case<'a> {
    pub name: &'static str,
    pub sample: Box<dyn FnMut() -> Vec<f64> + 'a>,
}

/// The meaning of one figure of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub unit: &'static str,
}

/// The target of a scenario: in words, and as a test of the medians.
pub struct Target {
    pub text: &'static str,
    pub reached: fn(&Medians) -> bool,
}

/// The medians of a scenario, by case and column.
#[derive(Debug)]
pub struct Medians {
    baseline: &'static str,
    rows: Vec<(&'static str, Vec<f64>)>,
    /// The figures of all rounds, in the same places.
    rounds: Vec<Vec<Figures>>,
}

/// One question, and the cases that are compared to answer it.
pub struct Scenario<'a> {
    pub name: String,
    pub columns: &'a [Column],
    pub cases: Vec<Case<'a>>,
    /// The case that the others are set in relation to; mostly [`OURS`].
    pub baseline: &'static str,
    pub target: Option<Target>,
}

/// The case that is this crate. Others that are this crate, too, have names that begin so.
pub const OURS: &str = "ours";

const ROUNDS: usize = 7;

/// Rounds for ratios in each round, with samples of [`SHORT_SPAN`]: the speed of the machine changes within seconds.
pub const SHORT_ROUNDS: usize = 25;
pub const SHORT_SPAN: Duration = Duration::from_millis(400);

/// One column of figures.
#[derive(Clone, Debug, Default)]
struct Figures {
    rounds: Vec<f64>,
}

// === impl Harness ===

impl Harness {
    pub fn new(options: Options) -> Self {
        Self { options, tables: Vec::new() }
    }

    /// Whether the scenario was selected.
    pub fn wants(&self, name: &str) -> bool {
        let only = &self.options.only;
        only.is_empty() || only.iter().any(|wanted| name.starts_with(wanted.as_str()) || wanted.starts_with(name))
    }

    /// How long to measure for, where `full` is right for a whole run.
    pub fn span(&self, full: Duration) -> Duration {
        if self.options.quick { (full / 10).max(Duration::from_millis(20)) } else { full }
    }

    /// How often to repeat, where `full` is right for a whole run.
    pub fn times(&self, full: usize) -> usize {
        if self.options.quick { (full / 20).max(10) } else { full }
    }

    /// Measures a scenario and prints its table.
    pub fn run(&mut self, scenario: Scenario<'_>) {
        self.run_rounds(ROUNDS, scenario, None);
    }

    /// The same, with the ratios of the first column to the case `beside` in each round. The two samples of a round are
    /// seconds apart, so these ratios vary less than the figures of a machine whose speed changes.
    ///
    /// A round in which other programs took more than [`OTHERS`] of the cores is repeated, as often as there are rounds in
    /// all. Linux gives each session of programs an equal share, so one other program can take a whole core.
    pub fn run_rounds(&mut self, rounds: usize, scenario: Scenario<'_>, beside: Option<&str>) {
        if !self.wants(&scenario.name) {
            return;
        }
        let Scenario { name, columns, mut cases, baseline, target } = scenario;
        let rounds = if self.options.quick { 1 } else { rounds };
        let mut figures = vec![vec![Figures::default(); columns.len()]; cases.len()];
        let most_repeats = if self.options.quick { 0 } else { rounds };
        let (mut disturbed, mut repeated) = (0, 0);
        let mut round = 0;
        while round < rounds {
            let before = Machine::so_far();
            for turn in 0..cases.len() {
                // Each round begins with another case: none always follows the same one.
                let index = (turn + round) % cases.len();
                let sample = (cases[index].sample)();
                assert_eq!(
                    sample.len(),
                    columns.len(),
                    "`{}` of `{name}` gave another number of figures",
                    cases[index].name
                );
                for (figures, value) in figures[index].iter_mut().zip(sample) {
                    figures.rounds.push(value);
                }
            }
            round += 1;
            if beside.is_some() && Machine::so_far().others_since(before) > OTHERS {
                disturbed += 1;
                if repeated < most_repeats {
                    (repeated, round) = (repeated + 1, round - 1);
                    figures.iter_mut().flatten().for_each(|figures| _ = figures.rounds.pop());
                }
            }
        }
        let medians = |(case, row): (&Case<'_>, &Vec<Figures>)| (case.name, row.iter().map(Figures::median).collect());
        let all = cases.iter().zip(&figures).map(medians).collect();
        let medians = Medians { baseline, rows: all, rounds: figures };
        let figures = &medians.rounds;
        print!("{}", table(&name, columns, &medians, figures));
        if let Some(beside) = beside {
            println!("\nRatios to `{beside}` in each round, median (quarters; min–max):\n");
            for (case, _) in medians.rows.iter().filter(|(case, _)| *case != beside) {
                println!("- {case}: {}", medians.in_each_round(case, beside));
            }
            println!("\nOther programs disturbed {disturbed} rounds, and {repeated} of these were repeated.");
        }
        let target = target.map(|target| {
            let reached = (target.reached)(&medians);
            println!("\nTarget: {}: {}.", target.text, if reached { "reached" } else { "**not reached**" });
            json!({ "text": target.text, "reached": reached })
        });
        println!();
        self.tables.push(json!({
            "name": name,
            "baseline": baseline,
            "columns": columns.iter().map(|column| json!({ "name": column.name, "unit": column.unit })).collect::<Vec<_>>(),
            "rows": rows(columns, &medians, figures),
            "target": target,
        }));
    }

    /// Everything that was measured.
    pub fn into_json(self, machine: Value) -> Value {
        json!({ "machine": machine, "quick": self.options.quick, "tables": self.tables })
    }
}

// === impl Medians ===

impl Medians {
    /// The median of a case, by the number of its column.
    pub fn of(&self, case: &str, column: usize) -> f64 {
        self.rows.iter().find(|(name, _)| *name == case).map_or(f64::NAN, |(_, medians)| medians[column])
    }

    /// The baseline in relation to a case.
    pub fn ratio_to(&self, case: &str, column: usize) -> f64 {
        self.of(self.baseline, column) / self.of(case, column)
    }

    /// The median of the ratios of two cases in each round, in the first column.
    pub fn paired(&self, case: &str, beside: &str) -> f64 {
        self.ratios(case, beside).median()
    }

    fn in_each_round(&self, case: &str, beside: &str) -> String {
        let sorted = self.ratios(case, beside).sorted();
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        format!("{:.3} ({:.3}–{:.3}; {:.3}–{:.3})", sorted[sorted.len() / 2], at(1), at(3), at(0), at(4))
    }

    fn ratios(&self, case: &str, beside: &str) -> Figures {
        let of = |case: &str| {
            let row = self.rows.iter().position(|(name, _)| *name == case).expect("the scenario has this case");
            &self.rounds[row][0].rounds
        };
        Figures { rounds: of(case).iter().zip(of(beside)).map(|(figure, other)| figure / other).collect() }
    }

    /// Whether the baseline has the largest figure of all systems but ours and the one `excepted`.
    pub fn is_most_but(&self, excepted: &str, column: usize) -> bool {
        let ours = self.of(self.baseline, column);
        self.others().filter(|(name, _)| *name != excepted).all(|(_, medians)| medians[column] <= ours)
    }

    /// The same, where a system that had less than the baseline's median in one of its rounds counts as equal.
    pub fn is_most_or_within_spread_but(&self, excepted: &str, column: usize) -> bool {
        let ours = self.of(self.baseline, column);
        let rows = self.rows.iter().zip(&self.rounds);
        rows.filter(|((name, _), _)| !name.starts_with(OURS) && *name != excepted)
            .all(|(_, rounds)| rounds[column].spread().0 <= ours)
    }

    /// The baseline in relation to the largest figure of all systems but ours and the one `excepted`.
    pub fn ratio_to_best_but(&self, excepted: &str, column: usize) -> f64 {
        let others = self.others().filter(|(name, _)| *name != excepted);
        self.of(self.baseline, column) / others.map(|(_, medians)| medians[column]).fold(f64::NAN, f64::max)
    }

    /// Whether the baseline has the smallest figure of all systems but ours and the one `excepted`.
    pub fn is_least_but(&self, excepted: &str, column: usize) -> bool {
        let ours = self.of(self.baseline, column);
        self.others().filter(|(name, _)| *name != excepted).all(|(_, medians)| medians[column] >= ours)
    }

    fn others(&self) -> impl Iterator<Item = &(&'static str, Vec<f64>)> {
        self.rows.iter().filter(|(name, _)| !name.starts_with(OURS))
    }
}

// === impl Figures ===

impl Figures {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        self.sorted()[self.rounds.len() / 2]
    }

    fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted[0], sorted[sorted.len() - 1])
    }
}

/// The share of `values` that `quantile` cuts off, from 0 to 1.
pub fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((values.len() as f64 * quantile) as usize).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// The table in Markdown, padded so that it can be read as it stands.
fn table(name: &str, columns: &[Column], medians: &Medians, figures: &[Vec<Figures>]) -> String {
    let mut head = vec![String::new()];
    for Column { name, unit } in columns {
        head.extend([format!("{name}, {unit} (min–max)"), "ratio".to_owned()]);
    }
    let mut lines = vec![head];
    for ((name, row), figures) in medians.rows.iter().zip(figures) {
        let mut line = vec![(*name).to_owned()];
        for (column, (median, figures)) in row.iter().zip(figures).enumerate() {
            line.extend(cells(*median, figures.spread(), medians.of(medians.baseline, column)));
        }
        lines.push(line);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
    let mut text = format!("## {name}\n\n");
    for (number, line) in lines.iter().enumerate() {
        let _ = write!(text, "| {:1$} |", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(text, " {cell:>width$} |");
        }
        text.push('\n');
        if number == 0 {
            let _ = write!(text, "|{:-<1$}|", "", widths[0] + 2);
            for width in &widths[1..] {
                let _ = write!(text, "{:->1$}:|", "", width + 1);
            }
            text.push('\n');
        }
    }
    text
}

/// A median with its spread, and its ratio to the baseline's.
fn cells(median: f64, (min, max): (f64, f64), baseline: f64) -> [String; 2] {
    if median.is_nan() {
        return ["not measured".to_owned(), "–".to_owned()];
    }
    let ratio = median / baseline;
    let ratio = if ratio.is_finite() { format!("{ratio:.2}") } else { "–".to_owned() };
    [format!("{} ({}–{})", short(median), short(min), short(max)), ratio]
}

fn rows(columns: &[Column], medians: &Medians, figures: &[Vec<Figures>]) -> Vec<Value> {
    let row = |((name, row), figures): (&(&'static str, Vec<f64>), &Vec<Figures>)| {
        let figures: serde_json::Map<_, _> = columns
            .iter()
            .enumerate()
            .map(|(column, of)| {
                let (min, max) = figures[column].spread();
                let ratio = row[column] / medians.of(medians.baseline, column);
                let value = json!({
                    "median": row[column], "min": min, "max": max, "ratio": ratio, "rounds": figures[column].rounds,
                });
                (of.name.to_owned(), value)
            })
            .collect();
        json!({ "case": name, "figures": figures })
    };
    medians.rows.iter().zip(figures).map(row).collect()
}

/// Three digits that matter; large numbers with separators.
fn short(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
