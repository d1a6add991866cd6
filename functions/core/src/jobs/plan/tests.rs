use rackhand_schema::job::{BootMode, FirmwarePackage, InventoryParams, PowerParams};

use super::*;

fn id(n: u8) -> ServerId {
    format!("01920000-0000-7000-8000-0000000000{n:02x}").parse().unwrap()
}

fn bios(version: &str) -> FirmwareComponent {
    FirmwareComponent {
        key: "BIOS.Setup.1-1".into(),
        name: "BIOS".into(),
        software_id: Some("159".into()),
        version: version.into(),
        updateable: true,
        inactive: None,
        of_bmc: false,
    }
}

fn server(n: u8) -> TargetContext {
    TargetContext {
        id: id(n),
        name: format!("r{n}"),
        model: Some("PowerEdge R750".into()),
        generation: Some("idrac9".into()),
        bmc_version: Some("6.10.30.00".into()),
        power: PowerState::On,
        inventoried: true,
        credential_id: Some(credential_id()),
        has_pin: true,
        changed_by: None,
        refused_at: None,
        capabilities: vec![],
        machine: Machine { url: Some(format!("https://10.0.0.{n}")), ..Machine::default() },
        components: vec![bios("2.10.2")],
    }
}

fn package(version: &str, software_id: &str) -> FirmwarePackage {
    FirmwarePackage {
        name: format!("BIOS {version}"),
        file_name: "BIOS.EXE".into(),
        url: "http://repo/BIOS.EXE".into(),
        sha256: "a".repeat(64),
        size: 1,
        software_id: software_id.into(),
        version: version.into(),
    }
}

fn update(version: &str, software_id: &str) -> JobSpec {
    JobSpec::FirmwareUpdate(FirmwareUpdateParams {
        packages: [("idrac9".to_owned(), package(version, software_id))].into(),
        allow_downgrade: false,
    })
}

fn job(spec: JobSpec, servers: &[TargetContext]) -> NewJob {
    NewJob {
        site_id: "01920000-0000-7000-8000-0000000000ff".parse().unwrap(),
        spec,
        targets: servers.iter().map(|server| server.id).collect(),
        policy: JobPolicy::default(),
        reason: "test".into(),
    }
}

fn credential_id() -> CredentialId {
    "01920000-0000-7000-8000-0000000000fe".parse().unwrap()
}

/// Nothing is said of what the credential is sealed for.
fn context(servers: &[TargetContext]) -> Context {
    let credential =
        CredentialContext { name: "bmc".into(), suspended: None, sealed_for: None, not_looked_at: false };
    Context {
        servers: servers.to_vec(),
        credentials: [(credential_id(), credential)].into(),
        missing: vec![],
        executors_online: true,
        hardware_paused: None,
    }
}

fn planned(spec: JobSpec, servers: &[TargetContext]) -> Plan {
    plan(&job(spec, servers), &context(servers)).unwrap()
}

#[test]
fn a_credential_that_was_not_looked_at_is_told() {
    let servers = [server(1)];
    let (mut context, job) =
        (context(&servers), job(JobSpec::Power(PowerParams { action: PowerAction::ForceOff }), &servers));
    let before = plan(&job, &context).unwrap();
    context.credentials.get_mut(&credential_id()).unwrap().not_looked_at = true;
    let plan = plan(&job, &context).unwrap();
    let (target, before_target) = (&plan.targets[0], &before.targets[0]);
    let told = target.warnings.last().unwrap();
    assert!(told.starts_with("Whether credential bmc is sealed for this server was not checked"), "{told}");
    assert_eq!(target.warnings.len(), before_target.warnings.len() + 1);
    assert_eq!((&plan.digest, &target.blockers), (&before.digest, &before_target.blockers));
}

#[test]
fn a_credential_that_is_not_sealed_for_a_server_blocks_it() {
    let on = || JobSpec::Power(PowerParams { action: PowerAction::ForceOff });
    let target = |url: &str, pin: Option<&str>| CredentialTarget {
        url: url.into(),
        spki_sha256: pin.map(str::to_owned),
    };
    let mut servers = [1, 2, 3, 4, 5].map(server);
    for one in &mut servers[..4] {
        one.machine.spki_sha256 = Some("aa".into());
    }
    servers[3].machine.ipmi = Some("10.0.0.4".into());
    servers[3].capabilities = vec!["power_on".into()];
    servers[4].machine.url = Some("ipmi://10.0.0.5".into());
    let mut context = context(&servers);
    let plan_of = |context: &Context| plan(&job(on(), &servers), context).unwrap().targets;
    let unsaid = plan_of(&context);
    assert!(unsaid.iter().all(|target| target.blockers.is_empty()), "{unsaid:?}");

    let sealed_for = &mut context.credentials.get_mut(&credential_id()).unwrap().sealed_for;
    *sealed_for = Some(vec![
        target("https://10.0.0.1:443", Some("aa")),
        target("https://10.0.0.3", Some("bb")),
        target("https://10.0.0.4", Some("aa")),
        target("https://10.0.0.9", Some("aa")),
        target("ipmi://10.0.0.4", None),
        target("ipmi://10.0.0.5", None),
    ]);
    let planned = plan_of(&context);
    let blockers = planned.iter().map(|target| target.blockers.as_slice()).collect::<Vec<_>>();
    assert_eq!((blockers[0], blockers[4]), (&[][..], &[][..]));
    assert!(blockers[1][0].contains("bmc is not sealed for https://10.0.0.2"), "{blockers:?}");
    assert!(blockers[2][0].contains("another TLS key of https://10.0.0.3"), "{blockers:?}");
    // Its IPMI address is named for another BMC: what only IPMI could do is not done.
    assert!(blockers[3][0].contains("does not offer this power action"), "{blockers:?}");
    let warnings = &planned[3].warnings;
    assert!(
        warnings.iter().any(|text| text.contains("bmc is not sealed for ipmi://10.0.0.4")),
        "{warnings:?}"
    );
    assert!(planned[0].warnings.iter().all(|text| !text.contains("sealed")), "{planned:?}");
}

#[test]
fn an_update_names_component_versions_and_reboot() {
    let plan = planned(update("2.19.1", "159"), &[server(1)]);
    let expected = PlanStep::Firmware {
        component: "BIOS.Setup.1-1".into(),
        component_name: "BIOS".into(),
        from: "2.10.2".into(),
        to: "2.19.1".into(),
        sha256: "a".repeat(64),
        reboot: Reboot::Host,
    };
    assert_eq!(plan.targets[0].steps, [expected]);
    assert_eq!((plan.targets[0].blockers.len(), plan.targets[0].warnings.len()), (0, 0));
}

#[test]
fn every_obstacle_is_a_blocker_that_says_so() {
    type Change = fn(&mut TargetContext);
    let table: [(&str, Change); 12] = [
        ("No credential", |s| s.credential_id = None),
        ("TLS key", |s| s.has_pin = false),
        ("run an inventory job first, then plan", |s| s.inventoried = false),
        ("no package for PowerEdge R750 or idrac8", |s| s.generation = Some("idrac8".into())),
        ("no package for PowerEdge R750", |s| s.generation = None),
        ("run an inventory job first, or give", |s| {
            s.model = None;
            s.generation = None;
        }),
        ("no component with the software id 159", |s| s.components.clear()),
        ("Several components", |s| s.components.push(FirmwareComponent { key: "x".into(), ..bios("1") })),
        ("cannot be updated", |s| s.components[0].updateable = false),
        ("lists BIOS 2.19.1 as Updating: run an inventory job", |s| {
            s.components = vec![FirmwareComponent { inactive: Some("Updating".into()), ..bios("2.19.1") }];
        }),
        ("lists BIOS 2.19.1, but still runs 6.10.30.00: run an inventory job", |s| {
            s.components = vec![FirmwareComponent { of_bmc: true, ..bios("2.19.1") }];
        }),
        ("downgrading was not allowed", |s| s.components[0].version = "2.20.0".into()),
    ];
    for (expected, change) in table {
        let mut blocked = server(1);
        change(&mut blocked);
        let plan = planned(update("2.19.1", "159"), &[blocked, server(2)]);
        assert!(plan.targets[0].blockers.iter().any(|b| b.contains(expected)), "{expected}: {plan:?}");
        assert!(plan.targets[1].blockers.is_empty(), "{expected}: the neighbour");
    }
}

#[test]
fn an_installed_version_needs_nothing_even_where_it_could_not_be_installed() {
    let mut at_it = server(1);
    at_it.components[0].version = "2.19.1".into();
    at_it.components[0].updateable = false;
    let target = &planned(update("2.19.1", "159"), &[at_it]).targets[0];
    assert!(matches!(target.steps[..], [PlanStep::AlreadyInstalled { .. }]));
    assert!(target.blockers.is_empty() && target.estimated_minutes == 0);
}

#[test]
fn old_bmcs_reboot_the_host_at_once_and_bmc_packages_only_the_bmc() {
    let reboot =
        |component: &FirmwareComponent, generation, version| reboot_of(component, generation, version);
    let bios = bios("1");
    let idrac =
        FirmwareComponent { key: "iDRAC.Embedded.1-1".into(), name: "Integrated".into(), ..bios.clone() };
    let openbmc = FirmwareComponent { key: "1a2b3c4d".into(), of_bmc: true, ..bios.clone() };
    let lc = FirmwareComponent {
        key: "USC.Embedded.1:LC.Embedded.1".into(),
        name: "Lifecycle Controller".into(),
        ..bios.clone()
    };
    for (component, generation, version, expected) in [
        (&bios, Some("idrac8"), Some("2.61.60.60"), Reboot::HostAtOnce),
        (&bios, Some("idrac8"), Some("2.75.75.75"), Reboot::Host),
        (&bios, Some("idrac9"), Some("4.40.00.00"), Reboot::HostAtOnce),
        (&bios, Some("idrac9"), Some("5.00.00.00"), Reboot::Host),
        (&bios, Some("idrac9"), None, Reboot::HostAtOnce),
        // iDRAC10 numbers its versions anew.
        (&bios, Some("idrac10"), Some("1.30.05.50"), Reboot::Host),
        (&bios, None, None, Reboot::Host),
        (&idrac, Some("idrac9"), Some("4.40.00.00"), Reboot::Bmc),
        (&openbmc, None, Some("2.14.0"), Reboot::Bmc),
        (&lc, Some("idrac8"), Some("2.61.60.60"), Reboot::Bmc),
    ] {
        assert_eq!(
            reboot(component, generation, version),
            expected,
            "{component:?} {generation:?} {version:?}"
        );
    }
}

#[test]
fn the_digest_covers_what_is_approved_and_nothing_else() {
    let servers = [server(1), server(2)];
    let base = planned(update("2.19.1", "159"), &servers).digest;
    assert_eq!(base, planned(update("2.19.1", "159"), &servers).digest, "stable");
    let mut renamed = servers.clone();
    renamed[0].name = "other".into();
    renamed[0].power = PowerState::Off;
    assert_eq!(base, planned(update("2.19.1", "159"), &renamed).digest, "names and warnings are wording");

    let mut prior = servers.clone();
    prior[1].components[0].version = "2.10.3".into();
    assert_ne!(base, planned(update("2.19.1", "159"), &prior).digest, "prior version");
    let moves: [fn(&mut Machine); 5] = [
        |machine| machine.url = Some("https://10.9.9.9".into()),
        |machine| machine.ipmi = Some("10.9.9.9".into()),
        |machine| machine.spki_sha256 = Some("11".repeat(32)),
        |machine| machine.service_tag = Some("OTHER01".into()),
        |machine| machine.uuid = Some("another".into()),
    ];
    for change in moves {
        let mut moved = servers.clone();
        change(&mut moved[1].machine);
        assert_ne!(
            base,
            planned(update("2.19.1", "159"), &moved).digest,
            "another machine: {:?}",
            moved[1].machine
        );
    }
    let mut blocked = servers.clone();
    blocked[1].credential_id = None;
    assert_ne!(base, planned(update("2.19.1", "159"), &blocked).digest, "who is left out");
    let turned = [servers[1].clone(), servers[0].clone()];
    assert_ne!(base, planned(update("2.19.1", "159"), &turned).digest, "order");
    assert_ne!(base, planned(update("2.19.2", "159"), &servers).digest, "package");
    let mut policy = job(update("2.19.1", "159"), &servers);
    policy.policy.max_parallel = 1;
    assert_ne!(base, plan(&policy, &context(&servers)).unwrap().digest, "policy");
}

/// A digest that is stored must be found again by a later version of this code.
#[test]
fn the_digest_of_a_known_plan_stays() {
    let digest = planned(JobSpec::Inventory(InventoryParams {}), &[server(1)]).digest;
    insta::assert_snapshot!(digest, @"c0b970de74a4b83b12509505d027d8211da6c1fd75ab4b732a3457b99a2fec3e");
}

#[test]
fn missing_and_repeated_targets_refuse_the_job() {
    let spec = JobSpec::Power(PowerParams { action: PowerAction::On });
    let lost = Context { missing: vec![id(9)], ..context(&[]) };
    assert!(matches!(plan(&job(spec.clone(), &[]), &lost), Err(PlanError::Missing(_))));
    let twice = [server(1), server(1)];
    let refused = plan(&job(spec, &twice), &context(&twice)).unwrap_err();
    assert_eq!(refused.to_string(), format!("{} is named twice", twice[0].name));
}

#[test]
fn the_forecast_uses_the_parallelism_but_not_more() {
    let servers: Vec<_> = (1..=12).map(server).collect();
    // 12 × 20 minutes, 8 at once.
    assert_eq!(planned(update("2.19.1", "159"), &servers).estimated_minutes, 30);
    assert_eq!(planned(update("2.19.1", "159"), &servers[..1]).estimated_minutes, 20);
}

#[test]
fn power_jobs_warn_of_what_they_would_not_change() {
    let spec = |action| JobSpec::Power(PowerParams { action });
    assert_eq!(planned(spec(PowerAction::On), &[server(1)]).targets[0].warnings.len(), 1);
    assert!(planned(spec(PowerAction::GracefulShutdown), &[server(1)]).targets[0].warnings.is_empty());
    assert_eq!(planned(spec(PowerAction::PowerCycle), &[server(1)]).targets[0].warnings.len(), 1);
}

#[test]
fn a_power_plan_carries_the_state_that_was_read_where_it_is_known() {
    let power = |state| {
        let mut one = server(1);
        one.power = state;
        let plan = planned(JobSpec::Power(PowerParams { action: PowerAction::On }), &[one]);
        (plan.targets[0].power, plan.digest)
    };
    let (on, off, unknown) = (power(PowerState::On), power(PowerState::Off), power(PowerState::Unknown));
    assert_eq!([on.0, off.0, unknown.0], [Some(PowerState::On), Some(PowerState::Off), None]);
    assert!(on.1 == off.1 && off.1 == unknown.1, "no part of what is approved");
}

#[test]
fn a_package_for_the_model_goes_before_one_for_the_generation() {
    let packages = [("idrac9", "2.19.1"), ("PowerEdge R750", "2.20.0"), ("any", "1.0.0")]
        .map(|(key, version)| (key.to_owned(), package(version, "159")));
    let spec =
        JobSpec::FirmwareUpdate(FirmwareUpdateParams { packages: packages.into(), allow_downgrade: false });
    let mut other = server(2);
    other.model = Some("PowerEdge R650".into());
    let plan = planned(spec, &[server(1), other]);
    let versions = plan.targets.iter().map(|target| match &target.steps[..] {
        [PlanStep::Firmware { to, .. }] => to.as_str(),
        steps => panic!("{steps:?}"),
    });
    assert_eq!(versions.collect::<Vec<_>>(), ["2.20.0", "2.19.1"]);
}

#[test]
fn a_boot_override_is_planned_as_asked_and_says_how_long_it_holds() {
    let servers = [server(1)];
    let planned = |target, times, mode| {
        let spec = JobSpec::BootOverride(BootOverrideParams { target, times, mode });
        let plan = plan(&job(spec, &servers), &context(&servers)).unwrap();
        (plan.targets[0].clone(), plan.digest)
    };
    let (target, once) = planned(BootTarget::Pxe, BootTimes::Once, Some(BootMode::Uefi));
    let step = PlanStep::BootOverride {
        target: BootTarget::Pxe,
        times: BootTimes::Once,
        mode: Some(BootMode::Uefi),
    };
    assert_eq!((target.steps, target.blockers.len(), target.warnings.len()), (vec![step], 0, 1));
    let (target, continuous) = planned(BootTarget::Pxe, BootTimes::Continuous, Some(BootMode::Uefi));
    assert!(target.warnings[0].contains("until a job clears it"), "{:?}", target.warnings);
    assert_ne!(once, continuous);
    assert!(planned(BootTarget::None, BootTimes::Once, None).0.warnings.is_empty());
}

#[test]
fn a_plan_warns_of_what_would_hold_its_runs_up() {
    let spec = JobSpec::Power(PowerParams { action: PowerAction::GracefulShutdown });
    let mut refused = server(1);
    refused.refused_at = Some("2026-11-28 at 13:50 UTC".into());
    let warnings = &planned(spec.clone(), &[refused]).targets[0].warnings;
    assert!(
        warnings[0]
            .starts_with("The credential was refused on 2026-11-28 at 13:50 UTC; nothing was sent since.")
    );
    let mut suspended = context(&[server(1)]);
    let words = "Credential bmc version 1 is suspended: refused by the BMC of r7.";
    suspended.credentials.get_mut(&credential_id()).unwrap().suspended = Some(words.into());
    let plan_of = plan(&job(spec.clone(), &suspended.servers), &suspended).unwrap();
    assert_eq!(
        plan_of.targets[0].warnings,
        [format!(
            "{words} Seal a new version, or let it be tried again: on a server that refused it, or, if none that uses it \
             did, on any."
        )]
    );
    let context = Context { executors_online: false, ..context(&[server(1)]) };
    let plan = plan(&job(spec, &context.servers), &context).unwrap();
    assert_eq!(plan.targets[0].warnings, [NO_EXECUTOR]);
    assert!(plan.targets[0].blockers.is_empty(), "it may come online before the job is approved");
}

#[test]
fn a_plan_that_changes_something_warns_of_a_job_that_changes_the_server() {
    let busy = TargetContext { changed_by: Some("firmware update".into()), ..server(1) };
    let warnings = |spec| planned(spec, std::slice::from_ref(&busy)).targets.remove(0).warnings;
    let power = warnings(JobSpec::Power(PowerParams { action: PowerAction::GracefulShutdown }));
    assert!(power[0].starts_with("Another job (firmware update) changes this server."), "{power:?}");
    assert!(warnings(JobSpec::Inventory(InventoryParams {})).is_empty());
}

#[test]
fn a_plan_that_changes_something_warns_of_a_paused_site() {
    let paused = "Hardware operations of site lab are paused.".to_owned();
    let context = Context { hardware_paused: Some(paused.clone()), ..context(&[server(1)]) };
    let warnings = |spec| plan(&job(spec, &context.servers), &context).unwrap().targets.remove(0).warnings;
    assert_eq!(warnings(JobSpec::Power(PowerParams { action: PowerAction::GracefulShutdown })), [paused]);
    assert!(warnings(JobSpec::Inventory(InventoryParams {})).is_empty());
}

#[test]
fn a_power_action_that_the_bmc_does_not_offer_is_a_blocker() {
    let spec = |action| JobSpec::Power(PowerParams { action });
    let blockers = |server: &TargetContext, action| {
        planned(spec(action), std::slice::from_ref(server)).targets[0].blockers.clone()
    };
    let mut old = server(1);
    old.capabilities =
        ["power", "power_on", "power_force_off", "power_force_restart"].map(str::to_owned).to_vec();
    assert_eq!(blockers(&old, PowerAction::ForceOff), Vec::<String>::new());
    let missing = blockers(&old, PowerAction::GracefulRestart);
    assert_eq!(
        missing,
        ["Its BMC does not offer this power action. It offers: on, force off, force restart."]
    );
    assert_eq!(blockers(&server(2), PowerAction::GracefulRestart), Vec::<String>::new(), "not known");
    old.machine.ipmi = Some("10.0.0.1".into());
    assert_eq!(blockers(&old, PowerAction::GracefulShutdown), Vec::<String>::new(), "IPMI can");
    assert_eq!(blockers(&old, PowerAction::GracefulRestart).len(), 1, "IPMI cannot either");
}

#[test]
fn one_package_for_several_models_is_warned_of() {
    let mut other = server(2);
    other.model = Some("PowerEdge R650".into());
    let mixed = planned(update("2.19.1", "159"), &[server(1), other]);
    for target in &mixed.targets {
        assert!(target.warnings[0].contains("PowerEdge R650, PowerEdge R750"), "{:?}", target.warnings);
    }
    let alike = planned(update("2.19.1", "159"), &[server(1), server(2)]);
    assert!(alike.targets.iter().all(|target| target.warnings.is_empty()));
}

#[test]
fn a_version_that_is_only_written_otherwise_is_installed_already() {
    let mut same = server(1);
    same.components[0].version = "2.19.01".into();
    let plan = planned(update("2.19.1", "159"), &[same]);
    assert!(matches!(plan.targets[0].steps[0], PlanStep::AlreadyInstalled { .. }));
}
