//! One request in, at most one reply out.
//!
//! **Invariant:** a pure function of the request's bytes and the zone; whatever the bytes, it neither
//! panics nor keeps anything.
//! **Invariant:** a reply over UDP fits into what the client offers and never into more than 1232 bytes,
//! so that it is not fragmented; what does not fit is cut and marked (TC), and comes whole over TCP.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::NS;
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

use super::zone::{Lookup, RrSet, Wanted, Zone};
use crate::exchange::DATAGRAM;
use crate::value::RecordKind;

/// How the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// An alias may lead to an alias; more hops than this are a loop, or nobody follows them.
const HOPS: usize = 8;

/// The reply to a request, or none where silence is right: no header, or not a request at all.
pub(crate) fn reply(request: &[u8], transport: Transport, zone: &Zone) -> Option<Vec<u8>> {
    let header: &[u8; 12] = request.first_chunk()?;
    // A response is never answered: two servers would talk to each other for ever.
    if header[2] & 0x80 != 0 {
        return None;
    }
    let opcode = OpCode::from_u8((header[2] >> 3) & 0x0F);
    // UPDATE, NOTIFY and the rest: nothing of it is read.
    if opcode != OpCode::Query {
        return Some(bare(header, ResponseCode::NotImp));
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // A query has one question, no answers, an SOA in its authority section if it is an IXFR, and little more
    // than an OPT record behind: anything else is not worth decoding.
    if count(4) != 1 || count(6) != 0 || count(8) > 1 || count(10) > 3 {
        return Some(bare(header, ResponseCode::FormErr));
    }
    let Ok(asked) = Message::from_vec(request) else { return Some(bare(header, ResponseCode::FormErr)) };
    let mut answer = answer(&asked, zone);
    if transport == Transport::Udp {
        let most = usize::from(asked.max_payload().min(DATAGRAM));
        return Some(fitting(&mut answer, most).unwrap_or_else(|| bare(header, ResponseCode::ServFail)));
    }
    Some(answer.to_vec().unwrap_or_else(|_| bare(header, ResponseCode::ServFail)))
}

/// Encodes it within `most` bytes: whole, without the additional records, or cut.
fn fitting(answer: &mut Message, most: usize) -> Option<Vec<u8>> {
    let whole = answer.to_vec().ok()?;
    if whole.len() <= most {
        return Some(whole);
    }
    answer.additionals.clear();
    let plain = answer.to_vec().ok()?;
    if plain.len() <= most { Some(plain) } else { answer.truncate().to_vec().ok() }
}

/// A reply of twelve bytes: the request's id, opcode and RD with a code.
fn bare(header: &[u8; 12], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; 12];
    reply[0] = header[0];
    reply[1] = header[1];
    reply[2] = 0x80 | (header[2] & 0x79);
    reply[3] = code.low();
    reply
}

fn answer(asked: &Message, zone: &Zone) -> Message {
    let mut answer = Message::new(asked.id, MessageType::Response, asked.op_code);
    answer.metadata = Metadata::response_from_request(&asked.metadata);
    // The question goes back as it came, letter for letter: resolvers hide random bits in its case (0x20).
    answer.add_queries(asked.queries.iter().cloned());
    if let Some(edns) = &asked.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(DATAGRAM).set_dnssec_ok(edns.flags().dnssec_ok);
        answer.set_edns(ours);
        if edns.version() > 0 {
            answer.metadata.response_code = ResponseCode::BADVERS;
            return answer;
        }
    }
    // We hold no key, so we cannot know who signed it (RFC 8945, section 5.2.1).
    if asked.signature.is_some() {
        answer.metadata.response_code = ResponseCode::NotAuth;
        return answer;
    }
    let Some(question) = asked.queries.first() else {
        answer.metadata.response_code = ResponseCode::FormErr;
        return answer;
    };
    let wanted = match question.query_type() {
        RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::TSIG => None,
        RecordType::ANY => Some(Wanted::Any),
        kind => Some(RecordKind::of_wire(kind).map_or(Wanted::Foreign, Wanted::Kind)),
    };
    match wanted {
        Some(wanted) if question.query_class() == DNSClass::IN => {
            resolve(&mut answer, zone, question.name(), wanted);
        }
        _ => answer.metadata.response_code = ResponseCode::Refused,
    }
    answer
}

/// Fills in what the zone says, following aliases as long as they stay in it.
fn resolve(answer: &mut Message, zone: &Zone, name: &Name, wanted: Wanted) {
    // The owner is written as it was asked, so that it becomes a pointer to the question.
    let mut owner = name.clone();
    for hop in 0..HOPS {
        match zone.lookup(&LowerName::new(&owner), wanted) {
            Lookup::Outside if hop == 0 => {
                answer.metadata.response_code = ResponseCode::Refused;
                return;
            }
            // The rest of the chain is another server's to say.
            Lookup::Outside => return,
            Lookup::NoName => {
                answer.metadata.authoritative = true;
                answer.metadata.response_code = ResponseCode::NXDomain;
                return negative(answer, zone);
            }
            Lookup::NoData => {
                answer.metadata.authoritative = true;
                return negative(answer, zone);
            }
            Lookup::Found(kind, set) => {
                answer.metadata.authoritative = true;
                answer.add_answers(records(&owner, set));
                if kind == RecordKind::Ns {
                    glue(answer, zone, set);
                }
                return;
            }
            Lookup::Alias(target, set) => {
                answer.metadata.authoritative = true;
                answer.add_answers(records(&owner, set));
                owner = target.clone();
            }
        }
    }
}

fn records<'a>(owner: &'a Name, set: &'a RrSet) -> impl Iterator<Item = Record> + 'a {
    set.data.iter().map(|data| Record::from_rdata(owner.clone(), set.ttl, data.clone()))
}

/// The SOA says for how long the "no" holds (RFC 2308, section 3).
fn negative(answer: &mut Message, zone: &Zone) {
    let (apex, data, ttl) = zone.soa();
    answer.add_authority(Record::from_rdata(apex.clone(), ttl, data));
}

/// Addresses of the zone's own name servers, so that nobody needs to ask twice.
fn glue(answer: &mut Message, zone: &Zone, servers: &RrSet) {
    for data in &servers.data {
        let RData::NS(NS(server)) = data else { continue };
        for kind in [RecordKind::A, RecordKind::Aaaa] {
            if let Lookup::Found(_, set) = zone.lookup(&LowerName::new(server), Wanted::Kind(kind)) {
                answer.add_additionals(records(server, set));
            }
        }
    }
}
