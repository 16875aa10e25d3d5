"""Patterns of English sentences, and the questions that they answer."""

import re
from collections.abc import Iterator

# Parts of the patterns below, by the names that stand for them there.
PARTS = {
    # A short noun phrase without a clause in it.
    "NP": r"(?!(?:While|Although|Though|In|On|At|By|With|Without|For|From|During|After|Before|"
    r"Since|Because|If|When|As|To|Despite|Unlike|Like|Among|Following|Depending|Given|We|I|You|Even|Only|"
    r"Not|Once)\b)(?P<np>(?:(?!(?:that|which|who|if|when|while|because|and|or|but|than|is|are|was|"
    r"were|be|has|have|had|can|will|must|may|should|to|as|by|also|not|only)\b)"
    r"[\w'’\-./()]+ ){1,7}?)",
    "THE": r"(?P<np>(?:The|A|An|Each|[A-Z][\w.]+) (?:[\w.()-]+ ){0,3}?)",
    "BE": r"(?P<be>is|are|was|were)",
    "CAN": r"(?P<aux>is|are|was|were|can|could|must|may|should|will|has been|have been)",
    "COUNT": r"(?:(?:about|at least|at most|up to|only|over|more than|around|nearly|exactly|some|"
    r"as many as) )?(?P<n>\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|eleven|"
    r"twelve)(?: (?:million|billion|thousand|hundred))?",
    "THINGS": r"(?P<thing>(?:[a-z-]+ )?[a-z]+s)\b",
    "HAS": r"(?P<verb>has|have|had|contains?|supports?|uses?|requires?|needs?|includes?|provides?|"
    r"takes?|accepts?|comprises?|covers?)",
    "YEAR": r"(?:in|on|since|during) (?P<date>(?:\d{1,2} )?(?:(?:January|February|March|April|May|"
    r"June|July|August|September|October|November|December) )?(?:\d{1,2}, )?(?:1\d|20)\d\d)",
    "DONE": r"(?P<done>[a-z]+ed|born|built|made|written|held|won|sold|begun|known|taken|given|led)",
    "DID": r"(?P<past>[a-z]+ed|won|began|became|took|made|wrote|led|went|held|built|rose|fell)",
    "HEAD": r"(?P<head>[A-Za-z][\w-]*(?: [\w-]+){0,3}?)",
    "THAT": r"(?<!in )(?<!of )(?<!to )(?<!by )(?<!on )(?<!at )(?<!for )(?<!with )(?<!from )"
    r"(?:that|which|who)",
    "AUTHORS": r"(?:We|They|The authors?|(?:The|Our) results|The simulations?|Results)",
    "CHOSE": r"(?P<past>use|used|employ|employed|adopt|adopted|apply|applied|choose|chose|follow|"
    r"followed|propose|proposed|consider|considered)",
    "FOUND": r"(?:find|found|show|showed|see|saw|observed?|noted?|reported?|concluded?|suggest|"
    r"indicate|demonstrate)",
    "OBJECT": r"(?P<rest>(?:the|a|an|to|its|their|all|any|each|whether|how|more) .+)",
}
# Kind and pattern of a whole sentence; below it, ways to ask, apart by " / ". In a way, {np} and
# so on are what the pattern found, {base} is the base form of its verb, {me} says "I" for "you".
_RULES = r"""
definition NP<BE> (?P<rest>(?:a|an|the|any) .+)
  What {be} {np}? / what {be} {np} / {np} / {np} meaning / Define {np}. / {np} definition
  Can you explain what {np} {be}?
which NP<BE> (?:a|an|the|one of the|the only) HEAD THAT (?P<tail>[a-z]+ .+)
  Which {head} {tail}? / What {head} {tail}? / {head} that {tail} / name of the {head} that {tail}
which NP<BE> (?:a|an|the|one of the) HEAD (?P<tail>(?:used|located|designed|intended|based|made) .+)
  Which {head} {be} {tail}? / What {head} {be} {tail}? / {head} {tail}
who NP(?P<be>is|was) (?:a|an|the) (?P<head>[\w, -]+?) (?P<tail>(?:of|in|from|for|during|at) .+)
  Who {be} the {head} {tail}? / {head} {tail}
number COUNT THINGS (?P<rest>(?:are|were|have|can|must|may|will|had) .+)
  How many {thing} {rest}? / number of {thing} {rest}
number NP<HAS> COUNT THINGS(?P<rest>.*)
  How many {thing} {do} {np} {base} {rest}? / number of {thing} {np} {rest}
  how many {thing} in {np}
number NP<CAN> (?P<more>(?:\w+ ){0,4}?)COUNT THINGS(?P<rest>.*)
  How many {thing} {aux} {np} {more} {rest}? / how many {thing} {np} {rest}
number (?P<np>The (?:[\w-]+ ){1,4}?(?:of (?:the )?(?:[\w-]+ ){1,3}?)?)BE (?:\w+ ){0,2}?COUNT.*
  What {be} {np}? / How large {be} {np}? / {np}
date NP(?P<be>was|were|is) (?:\w+ )??DONE(?P<mid>(?: [^,]+?)?),? YEAR.*
  When {be} {np} {done} {mid}? / In which year {be} {np} {done} {mid}? / {np} {done} year
  date {np} {done} {mid}
date NP<DID>(?P<mid> [^,]+?),? YEAR.*
  When did {np} {base} {mid}? / In what year did {np} {base} {mid}? / year {np} {past} {mid}
condition If (?P<if>[^,]+), (?!then).+
  What happens if {me}? / what if {me} / What is the consequence if {me}? / {me}
condition When (?P<if>[^,]+), .+
  What happens when {me}? / what happens when {me} / {me}
condition (?!If|When|To)[A-Z].+?,? (?P<cue>if|when|unless) (?P<if>[^,]+)
  What happens {cue} {me}? / {cue} {me}, what happens?
how (?:In order )?[Tt]o (?P<do>[a-z]+ [^,]+), .+
  How do I {me}? / how to {me} / How can I {me}? / {me} / way to {me} / I want to {me}, how?
how (?:You|One|Users) can (?P<do>[a-z]+ .+?),? (?:by|using|with|through|via|if you|in the) .+
  How can I {me}? / how to {me} / How do I {me}? / {me}
how Use .+? to (?P<do>[a-z]+ .+)
  How do I {me}? / how to {me} / What should I use to {me}? / What do I need to {me}? / {me}
lets NP(?:lets?|allows?|enables?|permits?) (?:you|users|one|us)(?: to)? (?P<do>[a-z]+ .+)
  How can I {me}? / What lets me {me}? / {me} / how to {me}
use NP(?:BE|can be|may be) (?:\w+ly |often )?(?:used|needed|useful) (?P<for>(?:to|for|as|in) .+)
  What is {np} used for? / purpose of {np} / what {np} is for / What is used {for}?
  What do I use {for}?
use AUTHORS CHOSE .+? (?P<for>(?:to|for|as|in|when) .+)
  What do the authors use {for}? / What is used {for}? / what do they {base} {for}
  What was chosen {for}?
finding AUTHORS FOUND that (?P<rest>.+)
  {rest} / Is it true that {rest}? / What was found about {tail}?
why NP<CAN> (?P<rest>.+?),? (?:because|since|so that|in order to) .+
  Why {aux} {np} {rest}? / why {np} {aux} {rest} / reason why {np} {aux} {rest}
why (?P<np>.+?),? because .+
  Why is it that {np}? / reason: {np}
whether NP(?P<aux>is|are|was|were|can|must|may|should|will) (?!a |an |the )(?P<rest>.+)
  {Aux} {np} {rest}? / Is it true that {np} {aux} {rest}? / {aux} {np} {rest}
subject THE(?P<verb>[a-z]+(?:s|ed)) OBJECT
  What {verb} {rest}? / {which} {verb} {rest}? / What is it that {verb} {rest}? / {rest}
object THE(?P<verb>[a-z]+s) OBJECT
  What does {np} {base}? / What {do} {np} do? / {np} / what does {np} do
"""


def _compiled() -> Iterator[tuple[str, "re.Pattern[str]", list[str]]]:
    """Kind, pattern and ways of each rule."""
    parts = re.compile(rf"<({'|'.join(PARTS)})>|(?<![A-Z])({'|'.join(PARTS)})(?![A-Z])")
    for rule in re.split(r"\n(?=\S)", _RULES.strip()):
        line, *ways = rule.split("\n")
        kind, _, pattern = line.partition(" ")
        pattern = parts.sub(lambda match: PARTS[next(filter(None, match.groups()))], pattern)
        yield (
            kind,
            re.compile(pattern + r"\."),
            " / ".join(way.strip() for way in ways).split(" / "),
        )


RULES = list(_compiled())
# Fields of profiles as people ask for them.
_FIELDS = """
population: How many people live in {topic}? / number of inhabitants of {topic}
capital: Which city is the seat of government of {topic}? / main city {topic}
area: How large is {topic}? / size of {topic} in square kilometres
languages: What do people speak in {topic}? / language spoken {topic}
religions: What do people believe in {topic}? / faiths in {topic}
natural resources: Which raw materials does {topic} have? / minerals {topic}
climate: What is the weather like in {topic}? / weather {topic}
terrain: What does the land look like in {topic}? / landscape {topic}
coastline: How long is the coast of {topic}? / length of the shore {topic}
independence: When did {topic} become a country of its own? / since when sovereign {topic}
internet users: How many people are online in {topic}?
exports - partners: Where does {topic} sell its goods?
imports - partners: Where does {topic} buy its goods?
median age: How old is the average person in {topic}?
airports: How many airfields are there in {topic}?
location: Where is {topic}? / where on the map is {topic}
exchange rates: What is the currency of {topic} worth?
unemployment rate: Which share of {topic} is out of work?
life expectancy at birth: How long do people live in {topic}?
national holiday: What day does {topic} celebrate?
agriculture - products: What do farmers grow in {topic}?
industries: What is produced in {topic}?
"""
FIELDS = {
    name: ways.split(" / ")
    for name, _, ways in (line.partition(": ") for line in _FIELDS.strip().split("\n"))
}
