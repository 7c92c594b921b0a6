//! The rules for the settings by which an autoscaler scales: the pools that count, and the load to aim at.

use super::nearest::list;
use super::pool::ThreadPools;
use crate::workload::Workload;

/// The accepted loads, for the message.
pub(crate) const TARGET_REMEDY: &str = "give a load from 0.05 to 1, such as `0.7`";

pub(crate) fn check_target(load: f64) -> Result<(), String> {
    if (0.05..=1.0).contains(&load) {
        return Ok(());
    }
    let fault = if load > 1.0 {
        "is more than the pools can do"
    } else if load < 0.0 {
        "is negative"
    } else if load.is_nan() {
        "is no number"
    } else {
        "is too little to aim at"
    };
    Err(format!("{load} {fault}; {TARGET_REMEDY}"))
}

/// Checks one of the names in `scale_by`. `earlier` are those before it.
pub(crate) fn check_name(name: &Workload, earlier: &[Workload], pools: &ThreadPools) -> Result<(), String> {
    if pools.get(name).is_none() {
        let known: Vec<&str> = pools.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("there is no pool `{}`; the pools are {}", name.as_str().escape_debug(), list(&known)));
    }
    if earlier.contains(name) {
        return Err(format!("`{name}` is given twice; name it once"));
    }
    Ok(())
}
