//! What records say: is a custom domain shown to be an instance's? Pure.
//!
//! | records | meaning |
//! |---|---|
//! | a TXT record at the verification name whose character-strings, joined, are the value | shown |
//! | the domain is a CNAME to the instance's random name, in one step: what that name is in turn is not asked | shown |
//! | others, no such name (NXDOMAIN), nothing of this type (NODATA) | not this way |
//! | SERVFAIL, REFUSED, a referral to other servers, no answer | trouble: nobody knows |
//!
//! The verification name itself may be a CNAME to where somebody keeps TXT records: the name server follows it.

use std::time::Duration;

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record};

/// What one question came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The domain is shown this way; how long the answer may be remembered.
    Shown(Duration),
    /// It is not shown this way; how long the answer may be remembered.
    NotShown(Duration),
    /// Nobody knows, and why.
    Trouble(String),
}

/// Judges the answer to the question for TXT records.
pub(super) fn txt(answer: Result<Lookup, NetError>, value: &str) -> Told {
    judge(answer, "TXT", |record| match &record.data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    })
}

/// Judges the answer to the question for a CNAME record of `domain`.
pub(super) fn cname(answer: Result<Lookup, NetError>, domain: &Name, target: &Name) -> Told {
    judge(answer, "CNAME", |record| match &record.data {
        // Names compare without regard to case.
        RData::CNAME(name) => record.name == *domain && name.0 == *target,
        _ => false,
    })
}

fn judge(answer: Result<Lookup, NetError>, kind: &str, shows: impl Fn(&Record) -> bool) -> Told {
    let error = match answer {
        Ok(lookup) => {
            let seconds = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
            let remembered = Duration::from_secs(seconds.into());
            let found = lookup.answers().iter().any(shows);
            return if found { Told::Shown(remembered) } else { Told::NotShown(remembered) };
        }
        Err(error) => error,
    };
    let why = match error {
        NetError::Dns(DnsError::NoRecordsFound(nothing)) => {
            let referral = nothing.ns.is_some() && nothing.soa.is_none();
            if !referral || nothing.response_code == ResponseCode::NXDomain {
                let seconds = nothing.negative_ttl.unwrap_or_default();
                return Told::NotShown(Duration::from_secs(seconds.into()));
            }
            "the name server does not look the name up but names other servers".to_owned()
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => {
            "the name server answered SERVFAIL".to_owned()
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => {
            "the name server answered REFUSED".to_owned()
        }
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server answered {code}"),
        NetError::Timeout => "no name server answered in time".to_owned(),
        NetError::NoConnections | NetError::Io(_) => "no name server can be reached".to_owned(),
        other => format!("the question failed: {other}"),
    };
    Told::Trouble(format!("asking for {kind} records: {why}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::RecordType;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, SOA, TXT};

    use super::*;

    const VALUE: &str = "latchkey-verification=met4co26cunebg6tkxjs6zlu5nzxv5n2";

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn records(kind: RecordType, records: &[(&str, u32, RData)]) -> Lookup {
        let records = records.iter().map(|(at, ttl, data)| Record::from_rdata(name(at), *ttl, data.clone()));
        Lookup::new_with_max_ttl(Query::query(name("home.example.com."), kind), records)
    }

    fn text(strings: &[&str]) -> RData {
        RData::TXT(TXT::new(strings.iter().map(ToString::to_string).collect()))
    }

    fn alias(to: &str) -> RData {
        RData::CNAME(CNAME(name(to)))
    }

    fn nothing(code: ResponseCode) -> NoRecords {
        NoRecords::new(Query::query(name("home.example.com."), RecordType::TXT), code)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn every_way_to_answer_a_txt_question() {
        let at = "_latchkey.home.example.com.";
        let (front, back) = VALUE.split_at(30);
        let shouted = VALUE.to_uppercase();
        let longer = format!("{VALUE}x");
        for (answers, expected) in [
            (vec![(at, 300, text(&[VALUE]))], Told::Shown(seconds(300))),
            (vec![(at, 300, text(&["v=spf1 -all"])), (at, 60, text(&[VALUE]))], Told::Shown(seconds(60))),
            (vec![(at, 300, text(&[front, back]))], Told::Shown(seconds(300))),
            // One record's strings belong together, those of two records do not.
            (vec![(at, 300, text(&[front])), (at, 300, text(&[back]))], Told::NotShown(seconds(300))),
            (vec![(at, 300, text(&[&shouted]))], Told::NotShown(seconds(300))),
            (vec![(at, 300, text(&[&longer]))], Told::NotShown(seconds(300))),
            (vec![(at, 300, text(&[]))], Told::NotShown(seconds(300))),
            // Kept elsewhere: the alias comes with the answer.
            (
                vec![(at, 5, alias("txt.example.net.")), ("txt.example.net.", 300, text(&[VALUE]))],
                Told::Shown(seconds(5)),
            ),
            (vec![(at, 300, RData::A(A::new(192, 0, 2, 1)))], Told::NotShown(seconds(300))),
        ] {
            assert_eq!(txt(Ok(records(RecordType::TXT, &answers)), VALUE), expected, "{answers:?}");
        }
    }

    #[test]
    fn every_way_to_answer_a_cname_question() {
        let (domain, target) = (name("home.example.com."), name("met4co26.ui.example.com."));
        for (answers, expected) in [
            (vec![("home.example.com.", 60, alias("met4co26.ui.example.com."))], Told::Shown(seconds(60))),
            (vec![("Home.Example.com.", 60, alias("MET4CO26.ui.example.com."))], Told::Shown(seconds(60))),
            (vec![("home.example.com.", 60, alias("other.ui.example.com."))], Told::NotShown(seconds(60))),
            // Two steps are not taken.
            (
                vec![
                    ("home.example.com.", 60, alias("elsewhere.example.net.")),
                    ("elsewhere.example.net.", 60, alias("met4co26.ui.example.com.")),
                ],
                Told::NotShown(seconds(60)),
            ),
        ] {
            let told = cname(Ok(records(RecordType::CNAME, &answers)), &domain, &target);
            assert_eq!(told, expected, "{answers:?}");
        }
    }

    #[test]
    fn no_is_an_answer_and_trouble_is_none() {
        let soa = || {
            let soa = SOA::new(name("ns.example.com."), name("mail.example.com."), 1, 2, 3, 4, 5);
            Some(Box::new(Record::from_rdata(name("example.com."), 60, soa)))
        };
        let mut remembered = nothing(ResponseCode::NXDomain);
        (remembered.soa, remembered.negative_ttl) = (soa(), Some(900));
        let mut referral = nothing(ResponseCode::NoError);
        referral.ns = Some(std::sync::Arc::from(Vec::new()));
        let code = |code| NetError::Dns(DnsError::ResponseCode(code));
        for (error, expected) in [
            (nothing(ResponseCode::NXDomain).into(), Ok(0)),
            (nothing(ResponseCode::NoError).into(), Ok(0)),
            (remembered.into(), Ok(900)),
            (referral.into(), Err("names other servers")),
            (code(ResponseCode::ServFail), Err("SERVFAIL")),
            (code(ResponseCode::Refused), Err("REFUSED")),
            (code(ResponseCode::NotImp), Err("answered")),
            (NetError::Timeout, Err("in time")),
            (NetError::from(io::Error::from(io::ErrorKind::ConnectionRefused)), Err("can be reached")),
            (NetError::Message("odd"), Err("odd")),
        ] {
            let shown = format!("{error:?}");
            match (txt(Err(error), VALUE), expected) {
                (Told::NotShown(remembered), Ok(expected)) => assert_eq!(remembered, seconds(expected)),
                (Told::Trouble(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (told, _) => panic!("{shown}: {told:?}"),
            }
        }
    }
}
