//! What holds for every text and every table.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use route_table::{Cidr, Fingerprint, HostName, Route, RouteTable};

const HOST: &str =
    "[a-zA-Z0-9]([a-zA-Z0-9-]{0,6}[a-zA-Z0-9])?([.][a-zA-Z]([a-zA-Z0-9-]{0,6}[a-zA-Z0-9])?){0,3}";

fn host() -> impl Strategy<Value = HostName> {
    HOST.prop_filter_map("an address is no name", |text| text.parse().ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_name_reads_back_and_is_found_however_it_is_asked(name in host(), upper in any::<Vec<bool>>(), dot in any::<bool>()) {
        let mut asked: String = name.as_str().chars().enumerate()
            .map(|(at, each)| if upper.get(at) == Some(&true) { each.to_ascii_uppercase() } else { each })
            .collect();
        if dot {
            asked.push('.');
        }
        prop_assert_eq!(&asked.parse::<HostName>().unwrap(), &name);
        let route = Route::new("homes/lake".parse().unwrap()).with(|terms| terms.hostnames = vec![name.clone()]);
        let table = RouteTable::from_routes(1, None, [route]).unwrap();
        prop_assert!(table.by_host(&asked).is_some());
        let other = format!("x{asked}");
        prop_assert!(table.by_host(&other).is_none());
    }

    #[test]
    fn every_route_is_found_and_only_that_one(names in proptest::collection::btree_set(host(), 1..40)) {
        let names: Vec<HostName> = names.into_iter().collect();
        let routes = names.iter().enumerate().map(|(at, name)| {
            Route::new(format!("homes/i{at}").parse().unwrap())
                .with(|terms| terms.hostnames = vec![name.clone()])
        });
        let table = RouteTable::from_routes(1, None, routes).unwrap();
        for (at, name) in names.iter().enumerate() {
            prop_assert_eq!(table.by_host(name.as_str()).unwrap().id.as_str(), format!("homes/i{at}"));
        }
    }

    #[test]
    fn a_network_contains_what_shares_its_prefix(base in any::<u32>(), other in any::<u32>(), prefix in 0_u32..=32) {
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        let text = format!("{}/{prefix}", Ipv4Addr::from(base & mask));
        let network: Cidr = text.parse().unwrap();
        prop_assert_eq!(network.to_string(), text);
        for address in [other, (other & !mask) | (base & mask)] {
            let inside = address & mask == base & mask;
            let address = Ipv4Addr::from(address);
            prop_assert_eq!(network.contains(IpAddr::V4(address)), inside);
            prop_assert_eq!(network.contains(IpAddr::V6(address.to_ipv6_mapped())), inside);
        }
    }

    #[test]
    fn a_fingerprint_reads_back(digest in any::<[u8; 32]>()) {
        let fingerprint = Fingerprint::from_bytes(digest);
        prop_assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        prop_assert_eq!(fingerprint.to_string().to_uppercase().parse::<Fingerprint>().unwrap(), fingerprint);
    }

    #[test]
    fn any_text_is_a_table_or_an_error_of_one_line(text in "(revision: 1\n|[{])?(\"?routes\"?: ?)?(\\PC|[\n:{}\\[\\]\"&*-]){0,60}") {
        if let Err(error) = RouteTable::parse(&text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn any_text_is_a_value_or_an_error(text in any::<String>()) {
        let _name = text.parse::<HostName>();
        let _network = text.parse::<Cidr>();
        let _fingerprint = text.parse::<Fingerprint>();
        let _none = RouteTable::default().by_host(&text);
    }
}
