//! Settings that cannot be used are refused, each with its name and a remedy.

use std::time::Duration;

use tower_offload::Pools;
use tower_offload::slots::{BuildError, Slots, SlotsBuilder};

#[test]
fn slots_that_could_not_work_are_refused_with_the_name_of_the_setting() {
    let pools = Pools::default();
    let builder = || Slots::builder(&pools, "db").make(|| Ok::<_, String>(0_u8));
    let refused = |builder: SlotsBuilder<u8>| builder.build_lazy().unwrap_err().to_string();
    for (builder, setting) in [
        (Slots::builder(&pools, "db"), "make: "),
        (builder().keep_alive(Duration::ZERO), "keep_alive: 0"),
        (builder().max_lifetime(Duration::ZERO), "max_lifetime: 0"),
        (builder().nice(20), "nice: 20"),
    ] {
        let error = refused(builder);
        assert!(error.starts_with(setting), "{error}");
    }
    let unknown = Slots::<u8>::builder(&pools, "dbs").build_lazy().unwrap_err();
    assert!(matches!(&unknown, BuildError::UnknownPool(_)) && unknown.to_string().contains("`dbs`"), "{unknown}");
}
