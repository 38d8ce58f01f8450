//! The catalogue, joined from facts.

use super::*;

fn pool() -> PoolLaunch {
    PoolLaunch {
        pool: "general".into(),
        launch_template: "workers".into(),
        launch_template_version: None,
        subnets: vec!["subnet-a".into(), "subnet-b".into()],
        instance_types: vec!["m5.large".into()],
        labels: BTreeMap::from([("team".into(), "red".into()), (ZONE_LABEL.into(), "nowhere".into())]),
        taints: Vec::new(),
        reserved_cpu: MilliCpu(100),
        reserved_memory: Bytes(400 << 20),
        max_pods: 110,
    }
}

fn prices() -> PricesConfig {
    PricesConfig {
        as_of: "2026-01-01".into(),
        on_demand: BTreeMap::from([("m5.large".into(), HourlyPrice(96_000))]),
        read_on_demand: true,
        read_spot: true,
        spot_ratio: 0.4,
    }
}

fn subnet(zone: &Zone, free: u32) -> Subnet {
    Subnet { zone: zone.clone(), free }
}

fn facts() -> Facts {
    let (a, b) = (Zone::from("eu-central-1a"), Zone::from("eu-central-1b"));
    let large = InstanceType::from("m5.large");
    Facts {
        subnets: BTreeMap::from([("subnet-a".into(), subnet(&a, 250)), ("subnet-b".into(), subnet(&b, 250))]),
        templates: BTreeMap::from([("general".into(), Template { version: "4".into(), root_volume: Some(20) })]),
        types: BTreeMap::from([(large.clone(), Machine { cpus: 2, memory_mib: 8192, architecture: "amd64", spot: true })]),
        offered: BTreeSet::from([(large.clone(), a), (large, b)]),
        spot: SpotPrices::new(),
    }
}

fn offers(pools: &[PoolLaunch], facts: &Facts) -> (Vec<Offer>, Vec<String>) {
    let (catalogue, doubts) = assemble(pools, &prices(), "eu-central-1", facts);
    (catalogue.offers.to_vec(), doubts)
}

#[test]
fn each_zone_and_market_is_an_offer_with_its_price_and_the_node_it_becomes() {
    let (catalogue, doubts) = assemble(&[pool()], &prices(), "eu-central-1", &facts());
    assert_eq!(doubts, Vec::<String>::new());
    assert_eq!(catalogue.template_versions, BTreeMap::from([("general".into(), "4".to_owned())]));
    assert_eq!((catalogue.offers.len(), catalogue.prices.len()), (4, 4));
    let spot = &catalogue.offers[1];
    assert_eq!((spot.key.market, spot.price), (Market::Spot, HourlyPrice(38_400)));
    assert_eq!(spot.allocatable.cpu, MilliCpu(1900));
    // 8192 MiB less 7.5 % (615) less 400.
    assert_eq!(spot.allocatable.memory, Bytes(7177 << 20));
    assert_eq!(spot.allocatable.ephemeral_storage, Bytes((20 << 30) / 100 * 85));
    assert_eq!(spot.labels[ZONE_LABEL], "eu-central-1a", "a fact wins over the configuration");
    assert_eq!((spot.labels["team"].as_str(), spot.labels[MARKET_LABEL].as_str()), ("red", "spot"));
    for key in ["kubernetes.io/os", "kubernetes.io/arch"] {
        assert_eq!(spot.labels[&format!("beta.{key}")], spot.labels[key], "kubelets write it under its old name, too");
    }
}

#[test]
fn a_spot_price_that_ec2_tells_holds_for_its_zone() {
    let mut told = facts();
    told.spot.insert(("m5.large".into(), "eu-central-1b".into()), HourlyPrice(31_000));
    let (catalogue, _) = assemble(&[pool()], &prices(), "eu-central-1", &told);
    let spot = catalogue.offers.iter().filter(|offer| offer.key.market == Market::Spot);
    let spot: Vec<(&str, u64)> = spot.map(|offer| (offer.key.zone.as_str(), offer.price.0)).collect();
    assert_eq!(spot, [("eu-central-1a", 38_400), ("eu-central-1b", 31_000)]);
    assert!(catalogue.offers.iter().all(|offer| catalogue.prices[&offer.key] == offer.price));
}

#[test]
fn every_priced_type_has_its_prices_in_every_zone_whether_a_pool_may_buy_it_or_not() {
    let mut prices = prices();
    prices.on_demand.insert("c5.large".into(), HourlyPrice(85_000));
    let (catalogue, _) = assemble(&[pool()], &prices, "eu-central-1", &facts());
    let key = |zone: &str, market| OfferKey { instance_type: "c5.large".into(), zone: zone.into(), market };
    assert_eq!(catalogue.prices.len(), 8);
    assert_eq!(catalogue.prices[&key("eu-central-1a", Market::OnDemand)], HourlyPrice(85_000));
    assert_eq!(catalogue.prices[&key("eu-central-1b", Market::Spot)], HourlyPrice(34_000));
    assert!(catalogue.offers.iter().all(|offer| catalogue.prices[&offer.key] == offer.price));
}

#[test]
fn what_ec2_does_not_know_is_left_out_and_the_rest_stays() {
    let mut without_zone = facts();
    without_zone.subnets.remove("subnet-b");
    let (left, doubts) = offers(&[pool()], &without_zone);
    assert_eq!((left.len(), doubts.len()), (2, 1));
    assert!(doubts[0].contains("subnet-b"), "{doubts:?}");
    let mut elsewhere = facts();
    elsewhere.offered.retain(|(_, zone)| zone.as_str() == "eu-central-1a");
    assert_eq!(offers(&[pool()], &elsewhere).0.len(), 2);
    let unpriced = PoolLaunch { instance_types: vec!["m5.large".into(), "m9.huge".into()], ..pool() };
    let (left, doubts) = offers(&[unpriced, PoolLaunch { pool: "other".into(), ..pool() }], &facts());
    assert_eq!((left.len(), doubts.len()), (4, 2), "{doubts:?}");
}

#[test]
fn of_several_subnets_in_a_zone_the_one_with_most_addresses_is_used() {
    let pool = PoolLaunch { subnets: vec!["subnet-a".into(), "subnet-a2".into(), "subnet-b".into()], ..pool() };
    let used = |free: u32| {
        let mut facts = facts();
        facts.subnets.insert("subnet-a2".into(), subnet(&"eu-central-1a".into(), free));
        let (offers, doubts) = offers(std::slice::from_ref(&pool), &facts);
        assert_eq!((offers.len(), doubts.len()), (4, 0), "{doubts:?}");
        offers.iter().map(|offer| offer.subnet.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(used(251), ["subnet-a2", "subnet-a2", "subnet-b", "subnet-b"]);
    assert_eq!(used(250), ["subnet-a", "subnet-a", "subnet-b", "subnet-b"], "the first where they are equal");
}

#[test]
fn a_type_without_a_spot_market_is_offered_on_demand_only() {
    let mut fixed = facts();
    fixed.types.values_mut().for_each(|machine| machine.spot = false);
    assert!(offers(&[pool()], &fixed).0.iter().all(|offer| offer.key.market == Market::OnDemand));
}

#[test]
fn a_machine_smaller_than_its_reservations_is_no_offer() {
    let greedy = PoolLaunch { reserved_memory: Bytes(64 << 30), ..pool() };
    assert!(offers(&[greedy], &facts()).0.is_empty());
}

#[test]
fn the_root_volume_is_that_of_the_root_device_or_the_only_one() {
    let mapping = |name: &str, size| {
        let ebs = ec2::LaunchTemplateEbsBlockDevice::builder().volume_size(size).build();
        ec2::LaunchTemplateBlockDeviceMapping::builder().device_name(name).ebs(ebs).build()
    };
    let data = |mappings: Vec<_>| ec2::ResponseLaunchTemplateData::builder().set_block_device_mappings(Some(mappings)).build();
    assert_eq!(root_volume(&data(vec![mapping("/dev/sdb", 500), mapping("/dev/xvda", 30)])), Some(30));
    assert_eq!(root_volume(&data(vec![mapping("/dev/nvme0", 40)])), Some(40));
    assert_eq!(root_volume(&data(vec![mapping("/dev/sdb", 1), mapping("/dev/sdc", 2)])), None);
    assert_eq!(root_volume(&data(vec![])), None);
}

#[test]
fn a_type_is_read_only_when_its_figures_are_there() {
    let processor = ec2::ProcessorInfo::builder().supported_architectures(ArchitectureType::I386);
    let info = ec2::InstanceTypeInfo::builder()
        .instance_type("t2.micro".into())
        .v_cpu_info(ec2::VCpuInfo::builder().default_v_cpus(1).build())
        .memory_info(ec2::MemoryInfo::builder().size_in_mib(1024).build())
        .processor_info(processor.supported_architectures(ArchitectureType::X8664).build())
        .build();
    let expected = Machine { cpus: 1, memory_mib: 1024, architecture: "amd64", spot: true };
    assert_eq!(machine(&info), Some(("t2.micro".into(), expected)));
    let mut info = info;
    info.memory_info = None;
    assert_eq!(machine(&info), None);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_catalogue_outlives_a_failed_refresh() {
    let cache = Cache::default();
    assert!(matches!(cache.look(), Cached::Nothing));
    cache.refresh(async { Ok(Catalogue::default()) }).await.expect("the first");
    assert!(matches!(cache.look(), Cached::Fresh(_)));
    tokio::time::advance(REFRESH).await;
    assert!(matches!(cache.look(), Cached::Due(_)));
    assert!(matches!(cache.look(), Cached::Fresh(_)), "one refresh at a time");
    cache.refresh(async { Err(CloudError::Throttled { call: "DescribeSubnets" }) }).await.expect_err("throttled");
    assert!(matches!(cache.look(), Cached::Fresh(_)));
    tokio::time::advance(REFRESH_AGAIN).await;
    assert!(matches!(cache.look(), Cached::Due(_)), "and then it is tried again");
    assert_eq!(cache.age(), Some(REFRESH + REFRESH_AGAIN));
}
