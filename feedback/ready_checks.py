"""The checks behind ``ready_graders``: how far a reply keeps to an everyday preference, from 0 to 1. Pure.

Each is the source of a ``python`` grader as well, cut out of this file as it stands: so a check uses nothing but its
own lines, those of the helpers that it is listed with, and the modules ``json`` and ``re``.

1 means kept. Where a rule can be broken more or less, less is better: a model that learns from the figure must be told
that sixty words are nearer to fifty than two hundred are. An empty reply keeps no rule: see ``ready_graders``.
"""

import json
import re
from typing import Any


def count_words(text: str) -> int:
    """Words, where "don't" and "well-known" are one."""
    return len(re.findall(r"[^\W_]+(?:['’.-][^\W_]+)*", text))


def count_sentences(text: str) -> int:
    """Sentences and lines that have a word; "3.5", "e.g. this" and "Dr. Smith" do not end one."""
    text = re.sub(r"\b(e\.g|i\.e|etc|vs|Dr|Mr|Mrs|Ms|Prof|St|No|z\.B|usw)\.", r"\1", text)
    return sum(bool(re.search(r"\w", each)) for each in re.split(r"[.!?…]+[\"'”’)\]]*(?:\s+|$)|\n+|[。！？]", text))


def max_words(text: str, words: int) -> float:
    """At most so many words."""
    return min(1.0, words / max(1, count_words(text)))


def min_words(text: str, words: int) -> float:
    """At least so many words."""
    return min(1.0, count_words(text) / words)


def max_sentences(text: str, sentences: int) -> float:
    """At most so many sentences."""
    return min(1.0, sentences / max(1, count_sentences(text)))


def min_sentences(text: str, sentences: int) -> float:
    """At least so many sentences."""
    return min(1.0, count_sentences(text) / sentences)


def units(text: str, system: str) -> float:
    """Measures in the units of one system: metric or imperial. A text without measures keeps to it."""
    number = (
        r"(?:\d(?:[\d.,/]*\d)?|[½¼¾]|half an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty"
        r"|hundred|thousand|million|few|several|many)[\s-]*(?:and a half\s+)?(?:square |cubic |sq\.? ?)?"
    )
    imperial = (
        r"(?:miles?|mi|feet|foot|ft|inch(?:es)?|yards?|yds?|pounds?|lbs?|ounces?|oz|stone|gallons?|gal|pints?|quarts?|cups?"
        r"|acres?|mph|psi|degrees? fahrenheit|°\s?f|fahrenheit)\b"
    )
    metric = (
        r"(?:(?:kilo|centi|milli)?(?:met(?:er|re)s?|grams?|grammes?|lit(?:er|re)s?)|[kcm]?m|k?g|mg|kilos?|[mcd]?l|tonnes?"
        r"|hectares?|ha|km/h|kph|degrees? celsius|°\s?c|celsius)\b"
    )
    found = {
        name: len(re.findall(number + unit, text, re.IGNORECASE))
        for name, unit in (("imperial", imperial), ("metric", metric))
    }
    other = found["imperial" if system == "metric" else "metric"]
    return found[system] / (found[system] + other) if other else 1.0


def spelling(text: str, variety: str) -> float:
    """English as it is spelt in Britain or in America, by words that differ. A text without such words keeps to it."""
    british = (
        r"(?:colour|favour|honour|behaviour|neighbour|labour|flavour|humour|rumour|harbour|vapour|endeavour|parlour)\w*"
        r"|(?:centre|theatre|metre|litre|fibre|calibre|spectre|sombre)[sd]?|(?:kilo|centi|milli)metres?"
        r"|(?:organ|real|recogn|apolog|special|summar|emphas|minim|maxim|priorit|memor|critic|util|categor|final|modern"
        r"|normal|optim|visual|civil|custom|general)is(?:e|es|ed|ing|ation|ations)|(?:anal|paral|catal)ys(?:e|es|ed|ing)"
        r"|defence|offence|pretence|grey|travell(?:ed|er|ers|ing)|cancell(?:ed|ing)|modell(?:ed|ing)|labell(?:ed|ing)"
        r"|fuell(?:ed|ing)|jewellery|aluminium|catalogues?|dialogues?|mums?|maths|pyjamas|scepti\w+|plough\w*|moustache"
        r"|aeroplanes?|ageing|cosy|doughnuts?|enrol|fulfil|skilful|marvellous|woollen|manoeuvre\w*|tyres?|whilst"
    )
    american = (
        r"(?:color|favor|honor|behavior|neighbor|labor(?!ator)|flavor|humor|rumor|harbor|vapor|endeavor|parlor)(?!ous)\w*"
        r"|(?:center|theater|meter|liter|fiber|caliber|specter|somber)(?:s|ed)?|(?:kilo|centi|milli)meters?"
        r"|(?:organ|real|recogn|apolog|special|summar|emphas|minim|maxim|priorit|memor|critic|util|categor|final|modern"
        r"|normal|optim|visual|civil|custom|general)iz(?:e|es|ed|ing|ation|ations)|(?:anal|paral|catal)yz(?:e|es|ed|ing)"
        r"|defense|offense|pretense|gray|travel(?:ed|er|ers|ing)|cancel(?:ed|ing)|model(?:ed|ing)|label(?:ed|ing)"
        r"|fuel(?:ed|ing)|jewelry|aluminum|catalogs?|dialogs?|moms?|math|pajamas|skepti\w+|plow\w*|mustache"
        r"|airplanes?|aging|cozy|donuts?|enroll|fulfill|skillful|marvelous|woolen|maneuver\w*|tires?"
    )
    found = {
        name: len(re.findall(rf"\b(?:{words})\b", text, re.IGNORECASE))
        for name, words in (("british", british), ("american", american))
    }
    other = found["american" if variety == "british" else "british"]
    return found[variety] / (found[variety] + other) if other else 1.0


def bullets(text: str) -> float:
    """A list with bullets: two lines at least that begin with -, * or •."""
    return min(1.0, len(re.findall(r"^\s*[-*+•‣–]\s+\S", text, re.MULTILINE)) / 2)


def no_bullets(text: str) -> float:
    """No line begins with a bullet."""
    lines = [line for line in text.splitlines() if line.strip()]
    return sum(not re.match(r"\s*[-*+•‣–]\s+\S", line) for line in lines) / len(lines)


def numbered_list(text: str) -> float:
    """A list numbered from 1: two lines at least that begin with "1." or "1)", "2." and so on."""
    numbers = [int(each) for each in re.findall(r"^\s*(\d{1,3})[.)]\s+\S", text, re.MULTILINE)]
    in_order = sum(number == at for at, number in enumerate(numbers, 1))
    return min(1.0, len(numbers) / 2) * in_order / len(numbers) if numbers else 0.0


def plain_text(text: str) -> float:
    """No Markdown: no headings, bold, italics, code, links, quotes, bullets or tables. The share of lines without."""
    markdown = (
        r"^\s{0,3}#{1,6}\s|^\s*[-*+]\s+\S|^\s*>\s|^\s*```|^\s*\|.*\||^\s*(?:[-*_]\s*){3,}$|\*\*\S.*?\*\*|__\S.*?__"
        r"|(?<![\w*])\*[^\s*][^*]*\*(?!\w)|`[^`]+`|!?\[[^\]]+\]\([^)]+\)"
    )
    lines = [line for line in text.splitlines() if line.strip()]
    return sum(not re.search(markdown, line) for line in lines) / len(lines)


def table(text: str) -> float:
    """A Markdown table: a row of headings, the row of dashes, and one row at least."""
    row, rule = r"^[ \t]*\|?[^|\n]+\|.*\n", r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*\n"
    return float(bool(re.search(row + rule + r"[ \t]*\|?[^|\n]+\|", text, re.MULTILINE)))


def never_contain(text: str, words: str) -> float:
    """The words stand nowhere, as whole words, whatever their case."""
    found = rf"(?<!\w){re.escape(words)}(?!\w)"
    return float(not re.search(found, text, re.IGNORECASE))


def begins_with(text: str, words: str) -> float:
    """The reply begins so, whatever the case and the marks around it."""
    return float(text.strip().lstrip("*_#>\"'“ ").casefold().startswith(words.strip().casefold()))


def ends_with(text: str, words: str) -> float:
    """The reply ends so, whatever the case and the marks after it."""
    marks = "*_\"'”.!… "
    return float(text.strip().rstrip(marks).casefold().endswith(words.strip().rstrip(marks).casefold()))


def no_emoji(text: str) -> float:
    """No emoji."""
    emoji = "[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b\u23e9-\u23fa\ufe0f\u20e3]"
    return float(not re.search(emoji, text))


def no_question_at_end(text: str) -> float:
    """The reply does not end by asking something."""
    return float(not re.search(r"[?？]\W*$", text))


def no_apologies(text: str) -> float:
    """Nothing is apologised for."""
    apology = (
        r"\b(?:sorry|apolog(?:y|ies|i[sz]e|i[sz]es|i[sz]ing)|forgive me|pardon me|my (?:bad|mistake)|i regret"
        r"|entschuldig\w*|tut mir leid|désolée?|je m'excuse|lo siento|disculp\w*)\b"
    )
    return float(not re.search(apology, text.replace("’", "'"), re.IGNORECASE))


def letter_case(text: str, case: str) -> float:
    """The share of letters that are lower or upper case; a text without letters that have one keeps to it."""
    cased = [letter for letter in text if letter.lower() != letter.upper()]
    right = sum(letter.islower() if case == "lower" else letter.isupper() for letter in cased)
    return right / len(cased) if cased else 1.0


def address(text: str, form: str, language: str) -> float:
    """How the reader is addressed, in German, French or Spanish. A text that does not address them keeps to it."""
    informal = {
        "german": r"\b(?:[Dd]u|[Dd]ich|[Dd]ir|[Dd]ein(?:e[mnrs]?)?)\b",
        "french": r"\b(?:tu|te|toi|ton|ta|tes)\b|\bt'",
        "spanish": r"\b(?:tú|te|ti|tu|tus|contigo|tuy[oa]s?)\b",
    }
    formal = {
        # "Sie" and "Ihr" at the beginning of a sentence may be "she", "they", "her": these are not counted.
        "german": r"(?<![.!?:\n]\s)(?<!^)\b(?:Sie|Ihnen|Ihr(?:e[mnrs]?)?)\b",
        "french": r"\b(?:vous|votre|vos)\b",
        "spanish": r"\b(?:ustedes|usted)\b",
    }
    flags = 0 if language == "german" else re.IGNORECASE
    text = text.replace("’", "'")
    found = {
        name: len(re.findall(words[language], text, flags))
        for name, words in (("informal", informal), ("formal", formal))
    }
    other = found["formal" if form == "informal" else "informal"]
    return found[form] / (found[form] + other) if other else 1.0


def schema_fits(value: Any, schema: Any) -> bool:
    """Whether a value is as a JSON schema says, by the keywords that ``ready_graders`` lets pass."""
    if isinstance(schema, bool):
        return schema
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "null": type(None),
        "number": (int, float),
        "integer": int,
    }
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    whole = isinstance(value, float) and value.is_integer() and "integer" in names
    if names and not whole:
        is_bool = isinstance(value, bool)
        if not any(isinstance(value, kinds[name]) and (not is_bool or name == "boolean") for name in names):
            return False

    def same(left: Any, right: Any) -> bool:
        return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)

    if "enum" in schema and not any(same(value, each) for each in schema["enum"]):
        return False
    if "const" in schema and not same(value, schema["const"]):
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return False
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            return False
        if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            return False
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return False
        if not re.search(schema.get("pattern", ""), value):
            return False
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return False
        if not all(schema_fits(each, schema.get("items", True)) for each in value):
            return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        if not set(schema.get("required", [])) <= set(value):
            return False
        other = schema.get("additionalProperties", True)
        if not all(schema_fits(each, known.get(name, other)) for name, each in value.items()):
            return False
    fits = [schema_fits(value, each) for each in schema.get("anyOf", [True])]
    exactly = [schema_fits(value, each) for each in schema.get("oneOf", [True])]
    return any(fits) and sum(exactly) == 1 and all(schema_fits(value, each) for each in schema.get("allOf", []))


def json_schema(text: str, schema: Any) -> float:
    """The whole reply is JSON that the schema describes; half for any other JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return 0.0
    return 1.0 if schema_fits(value, schema) else 0.5
