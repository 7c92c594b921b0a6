//! Autoscaling in virtual time: the formulas of HPA, KEDA, Ray Serve and Knative on the load, on CPU utilization, and on
//! concurrency.

mod autoscalers;
mod fleet;

use self::autoscalers::{Autoscaler, Hpa, Knative, Ray};
use self::fleet::{Fleet, Run, Signal, turns};

/// The load at which every autoscaler aims.
const TARGET: f64 = 0.7;

/// Traffic in units of what one server can do, at a second of the run.
type Traffic = fn(f64) -> f64;

const HOUR: u32 = 3600;

/// Demand × 10 at once, after ten minutes.
fn step(second: f64) -> f64 {
    if second < 600.0 { 0.7 } else { 7.0 }
}

/// Demand × 10 within twenty minutes.
fn ramp(second: f64) -> f64 {
    0.7 + 6.3 * ((second - 600.0) / 1200.0).clamp(0.0, 1.0)
}

/// Demand × 6 within ten minutes, and back at once.
fn sawtooth(second: f64) -> f64 {
    1.0 + 5.0 * (second % 600.0) / 600.0
}

/// Demand × 5 for half a minute, every four minutes.
fn bursts(second: f64) -> f64 {
    if second % 240.0 >= 210.0 { 5.0 } else { 1.0 }
}

const TRAFFIC: [(&str, Traffic); 4] = [("step", step), ("ramp", ramp), ("sawtooth", sawtooth), ("bursts", bursts)];

const SIGNALS: [(&str, Signal); 3] =
    [("load", Signal::Load), ("CPU", Signal::Cpu), ("concurrency", Signal::Concurrency)];

fn autoscalers() -> [(&'static str, Box<dyn Autoscaler>); 4] {
    [
        ("HPA", Box::new(Hpa::new(15))),
        // KEDA feeds an HPA; its own polling is as often.
        ("KEDA", Box::new(Hpa::new(15).delayed(15))),
        ("Ray Serve", Box::new(Ray::default())),
        ("Knative", Box::new(Knative::default())),
    ]
}

fn run(traffic: Traffic, signal: Signal, autoscaler: &mut dyn Autoscaler) -> Run {
    Fleet::new(signal).run(traffic, HOUR, autoscaler)
}

/// Decisions from the step until there are ten servers, or are about to be.
fn decisions(signal: Signal, autoscaler: &mut dyn Autoscaler) -> usize {
    let changes = run(step, signal, autoscaler).changes;
    let after: Vec<_> = changes.iter().filter(|(second, _)| *second >= 600).collect();
    let right = after.iter().position(|(_, servers)| *servers >= 10).expect("it gets there");
    right + 1
}

#[test]
fn after_demand_times_ten_an_hpa_has_the_right_number_in_two_decisions_by_load_and_in_five_by_cpu() {
    assert_eq!(decisions(Signal::Load, &mut Hpa::new(15)), 2);
    assert_eq!(decisions(Signal::Cpu, &mut Hpa::new(15)), 5);
}

#[test]
fn by_load_all_but_knative_have_the_right_number_in_two_decisions_and_turn_round_at_most_once() {
    for (name, mut autoscaler) in autoscalers().into_iter().filter(|(name, _)| *name != "Knative") {
        let decisions = decisions(Signal::Load, &mut *autoscaler);
        assert!(decisions <= 2, "{name}: {decisions}");
        let (_, mut again) = autoscalers().into_iter().find(|(other, _)| *other == name).expect("it is there");
        let changes = run(step, Signal::Load, &mut *again).changes;
        assert!(turns(1, &changes) <= 1, "{name}: {changes:?}");
    }
}

#[test]
fn by_load_every_autoscaler_ends_at_the_right_number_and_by_concurrency_an_hpa_starts_far_too_many() {
    for (name, mut autoscaler) in autoscalers() {
        let changes = run(step, Signal::Load, &mut *autoscaler).changes;
        let last = changes.last().map(|(_, servers)| *servers);
        assert!(last.is_some_and(|servers| (10..=11).contains(&servers)), "{name}: {changes:?}");
    }
    let most = |signal| {
        let changes = run(step, signal, &mut Hpa::new(15)).changes;
        changes.into_iter().map(|(_, servers)| servers).max().expect("there is a step")
    };
    let (by_load, by_concurrency) = (most(Signal::Load), most(Signal::Concurrency));
    assert!(by_load <= 10 && by_concurrency >= 2 * by_load, "{by_load}, {by_concurrency}");
}

#[test]
fn by_load_a_fleet_is_never_out_of_its_objective_for_longer_than_by_cpu() {
    for (shape, traffic) in TRAFFIC {
        for ((name, mut by_load), (_, mut by_cpu)) in autoscalers().into_iter().zip(autoscalers()) {
            let load = run(traffic, Signal::Load, &mut *by_load).out_of_objective;
            let cpu = run(traffic, Signal::Cpu, &mut *by_cpu).out_of_objective;
            assert!(load <= cpu, "{name}, {shape}: {load} s by load, {cpu} s by CPU");
        }
    }
}

#[test]
#[ignore = "prints the tables of the README"]
fn tables() {
    println!(
        "| traffic | autoscaler | signal | minutes out of the objective | server hours | most servers | changes of direction |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (shape, traffic) in TRAFFIC {
        for at in 0..autoscalers().len() {
            for (signal_name, signal) in SIGNALS {
                let (name, mut autoscaler) = autoscalers().into_iter().nth(at).expect("there are as many");
                let result = run(traffic, signal, &mut *autoscaler);
                println!(
                    "| {shape} | {name} | {signal_name} | {:.1} | {:.2} | {} | {} |",
                    f64::from(result.out_of_objective) / 60.0,
                    result.server_seconds / 3600.0,
                    result.changes.iter().map(|(_, servers)| *servers).max().unwrap_or(result.first),
                    turns(result.first, &result.changes)
                );
            }
        }
    }
}
