"""Patterns of wording that state a preference, for training alone.

``[a|b|c]`` stands for one of its alternatives, and ``~`` marks a full sentence that takes no frame such as "Please …".
"""

import random
import re

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
REPLIES = "[your replies|every reply|each reply|all replies|your answers|every answer|each answer|all your answers|every message|each message|what you write|your messages|everything you say]"
WORDS = "[|||the words |the phrase |the line |the sentence |exactly |just ]"


def expand(rng: random.Random, way: str) -> str:
    """Replace each ``[a|b|c]`` by one of its alternatives, innermost first."""
    while "[" in way:
        way = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), way)
    return way


CLOSER_MORE = (
    f"[End|Finish|Close|Conclude|Wrap up|Round off|Complete|Sign|Seal] {REPLIES} with {WORDS}{{p}}",
    f"[Add|Put|Write|Place|Say|Append|Attach|Use|Leave] {WORDS}{{p}} [at the end|at the very end|at the bottom|as the last words|as the last line|last|as a sign-off|as a closing line|after your answer|when you are done] [|of {REPLIES}]",
    f"~[I want|I would like|I like|I prefer|I need|I love] {REPLIES} to [end|finish|close|conclude] with {WORDS}{{p}}",
    f"~[The last words|The ending|The final words|The last line|The closing|The final line] of {REPLIES} [should be|must be|is always|has to be|will be] {{p}}",
    "~[Your sign-off is|My favorite ending is|The way to end is|Our closing words are|The last thing you say is|The last thing I want to hear is|I want the last words to be|Whatever you say, the end is|Whatever I ask, finish with|No matter what, end with] {p}",
    f"~[Make sure|See to it|Be sure|I insist] that {REPLIES} [ends with|end with|closes with|finishes with] {WORDS}{{p}}",
    "~[Do not stop before you have said|Never end without|Do not forget the ending|Never forget to close with|Always leave me with] {p}",
    "[Sign off|Say goodbye|Part|Leave] with {p}",
    f"[Have|Let|Make] {REPLIES} [end|finish|stop|close] [with|on] {WORDS}{{p}}",
    "~{p} [comes last|is the last thing to say|goes at the end|is how you end|is your goodbye|belongs at the end|ends every reply]",
    "~[After|Behind] [each answer|every reply|your answer|all that you write] [comes|stands|goes|I want|add|put] {p}",
)
OPENER_MORE = (
    f"[Start|Begin|Open|Lead|Commence] {REPLIES} with {WORDS}{{p}}",
    f"[Add|Put|Write|Place|Say|Use] {WORDS}{{p}} [at the start|at the beginning|at the front|first|as the first words|before anything else|before your answer|at the top] [|of {REPLIES}]",
    f"~[I want|I would like|I like|I prefer|I need] {REPLIES} to [start|begin|open] with {WORDS}{{p}}",
    f"~[The first words|The beginning|The opening|The first line] of {REPLIES} [should be|must be|is always|has to be] {{p}}",
    "~[My greeting is|The first thing you say is|The first thing I want to hear is|Whatever I ask, begin with|No matter what, start with] {p}",
    "[Greet me|Welcome me|Say hello] [with|by saying|using] {p}",
    f"[Have|Let|Make] {REPLIES} [start|begin|open] with {WORDS}{{p}}",
    "~{p} [comes first|is the first thing to say|goes at the start|is how you begin|is your greeting|belongs at the start|opens every reply]",
    "~[Before|Ahead of] [each answer|every reply|your answer|all that you write] [comes|stands|goes|I want|add|put] {p}",
)
LABEL_MORE = (
    f"[Label|Mark|Tag|Title|Head] {REPLIES} [with|as|using] {WORDS}{{p}}",
    f"[Write|Put|Use|Place|Add] {{p}} [before|in front of|ahead of|above] {REPLIES}",
    f"~{REPLIES} [should carry|must carry|needs|should have] the [label|tag|title|heading] {{p}}",
    f"~{REPLIES} [comes|goes|is kept|belongs] under the [label|tag|title] {{p}}",
    "~[The label|The tag|The title|The word] {p} [comes first|stands in front|goes before the answer|goes first|leads your answer]",
    "[Set|Write|Put] {p} [at the very front|before all else|ahead of the answer], [like a label|as a label|as a tag|as a heading]",
    f"~[I want|I like|I need] {{p}} [as the label|as the tag|as a label|in front] [of|on|for] {REPLIES}",
)
ADDRESS_MORE = (
    "[Call|Name] me {p} [|when you answer|when you talk to me|in your replies|from now on|at all times]",
    "[Address|Greet] me [as|by the name|with the name] {p}",
    "~[My name is|I am|I'm|The name is|People call me|Friends call me|They call me] {p}, [use it|so use that|so say it|and I like to hear it|say my name|call me that|so call me by it]",
    "~[I want to be called|I like being called|You should call me|You may call me|I prefer to be called|My nickname is|Use the name] {p}",
    "[Use|Say|Mention] [my name|the name] {p} [when you answer|in your answers|in every reply|when you speak to me]",
    "~When you [talk|speak|reply] to me, [call me|say|use the name] {p}",
    "~[Everybody|My mother|My boss|Everyone at work|The whole town|My family] [calls me|knows me as|says] {p}[|, do the same|, so do that too|, and so should you]",
    "[Know|Treat|Think of|Speak of] me as {p}",
    "~[I listen to|I answer to|I was born|I was named|I have always been|I am known as] {p}[|, say it|, so use it|, so write it in your answers]",
    "~[Hello, I am|Hi, I am|This is|I sign as] {p}[|. Use my name|, and I want to read my name|, say so when you answer]",
    "[Put|Write|Work|Include] [my name|the name] {p} [in|into] [your answers|every reply|what you write|each answer]",
)
QUESTION_MORE = (
    f"[End|Finish|Close|Conclude] {REPLIES} [with the question|by asking|with] {{p}}",
    f"[Ask|Add] {{p}} [at the end|last|after you answer|when you are done] [|of {REPLIES}]",
    f"~[I want|I like] {REPLIES} to end with the question {{p}}",
)
MORE: dict[str, tuple[str, ...]] = {
    "bullets": (
        "[Use|Write|Give me|Answer with|Reply with|Make|Send] [bullet points|bullets|a bullet list|a bulleted list|a list of bullets|a dashed list|a list with dashes]",
        f"[Format|Write|Arrange|Put|Present|Structure] {REPLIES} [as bullet points|in bullets|as a bullet list|as bullets|in bullet form]",
        "~[I like|I prefer|I want|I need|I love|Give me] [bullet points|bullets|bullet lists|short bullets] [|more than text|not paragraphs|when you answer|over long text]",
    ),
    "bullets_star": (
        "[Use|Write|Make] [a list with stars|star bullets|bullets with an asterisk|lists with asterisks|asterisks for bullets]",
        "[Begin|Start|Mark] [each|every] [item|point|line] with [a star|an asterisk|*]",
        "~[I like|I want|I prefer] [stars|asterisks] [as bullets|for bullets|in lists|for list items]",
    ),
    "numbered": (
        "[Use|Write|Give me|Answer with|Reply with|Make] [numbered steps|a numbered list|numbers for each step|a list with numbers|numbered points|steps with numbers]",
        f"[Format|Write|Arrange|Put|Present|Structure] {REPLIES} [as a numbered list|in numbered steps|as numbered points|with numbers]",
        "~[I like|I prefer|I want|I need] [numbered lists|numbered steps|steps with numbers|the steps numbered]",
        "Number [the steps|each step|every point|the points|your points]",
        "~[Steps|Points|Items|Lists] [should|must|have to] [be numbered|carry numbers|have numbers]",
        "[Put|Write|Set] [a number|numbers] [before|in front of] [each|every] [step|point|line|item]",
        "~[One, two, three|1, 2, 3]: [that is how I want it|that is how to list things|list things that way|number it all]",
    ),
    "one_sentence": (
        "[Answer|Reply|Respond|Explain|Say it] [in|with] [one|a single|exactly one|only one|just one] sentence",
        "[Use|Write|Give me|Keep to] [one|a single|exactly one|only one|just one] sentence [|only|and no more|please]",
        "~[One|A single] sentence [is plenty|will do|is all I need|is all I read|per answer|is enough]",
        "~[Never|Do not] [write|use|say|give me] more than one sentence",
    ),
    "two_sentences": (
        "[Answer|Reply|Respond|Explain] [in|with] [two|exactly two|just two|only two] sentences",
        "[Use|Write|Give me|Keep to] [two|exactly two|just two|only two] sentences",
        "~Two sentences [are plenty|will do|are all I need|per answer|is the right length]",
        "~[Two|Exactly two|Only two] sentences[|, please|, no more and no less|, every time|, not one and not three]",
        "[Say|Tell|Put|Explain] [it|everything|all of it] in two sentences",
        "~[Each|Every] [reply|answer|message] [has|should have|must have|is] [two|exactly two] sentences[| long|]",
    ),
    "three_sentences": (
        "[Answer|Reply|Respond|Explain] [in|with] [three|exactly three|just three] sentences",
        "[Use|Write|Give me|Keep to] [three|exactly three|just three] sentences",
        "~Three sentences [are plenty|will do|are all I need|per answer|is the right length]",
        "~[Three|Exactly three|Only three] sentences[|, please|, no more and no less|, every time|, not two and not four]",
        "[Say|Tell|Put|Explain] [it|everything|all of it] in three sentences",
        "~[Each|Every] [reply|answer|message] [has|should have|must have|is] [three|exactly three] sentences[| long|]",
        "~[I want|I like|I need|I prefer] [three|exactly three] sentences[| from you| in a reply]",
    ),
    "long": (
        "[Give|Write|Send] [me |][long|detailed|full|complete|thorough] [answers|replies|explanations]",
        "[Be|I want you to be] [detailed|thorough|complete]",
        "~[I like|I want|I prefer|I love] [long|detailed|full|thorough] [answers|replies|explanations]",
        "[Tell|Give] me [all the details|every detail|as much as you can|the whole story|more detail|all you know]",
        "[Write|Use|Give me] [four or more|at least four|many] sentences",
        "[Explain|Answer] [at length|in full|fully|in great detail|thoroughly]",
        "~[Do not|Never] [be brief|be short|answer briefly|keep it short|stop after one sentence|spare words]",
        "~[A short answer|A brief reply|One sentence|One line|A quick answer|Two sentences|A few words|Brief answers|Short replies] [is|are|does|will] not [do|enough|what I want|enough to help me|help me|enough of an answer]",
        "~[A short answer|A brief reply|One sentence|A few words|Brief answers|Short replies] [leaves me hungry|tells me too little|is too little|is too short for me|never helps me|says too little]",
        "~[I have time|I read a lot|I like to read|I enjoy reading], [so write a lot|so go on at length|so tell me more than usual|so do not be brief]",
        "[Write|Say|Tell me] [a lot|more than you would|plenty|at least four sentences|five sentences or so|a whole paragraph|a long paragraph]",
        "[Go|Get] into [detail|the details|depth]",
        "~[The longer|The more|The fuller], the better",
    ),
    "metric": (
        "[Use|Write|Give|Stick to|Work in|Convert to|Show|Speak in] [metric|metric units|the metric system|kilometers and kilograms|meters, kilograms and Celsius|Celsius and kilometers|SI units]",
        "~[I use|I know|I only know|I am used to|I grew up with|I understand] [metric|metric units|the metric system|kilometers and kilograms|Celsius and kilometers]",
        "~[No|Do not use|Avoid|Never use] [miles|miles or pounds|feet|Fahrenheit|imperial units|pounds or ounces|US units], [use metric|only metric|metric please|I use metric]",
        "~I [live in|am from|come from] [France|Germany|Spain|Italy|Sweden|Canada|Poland|Japan], [use metric|so use metric units|metric please|we use the metric system]",
        "[Write|Give|Show] [distances|weights|temperatures|all measures|amounts] in [metric|metric units|kilometers|Celsius|grams and meters]",
        "~[Only|Nothing but|Just] [metric|meters and kilograms|kilometers and Celsius|metric sizes|metric numbers][| please| for me]",
        "~[Metric|The metric system|Kilometers, kilograms and Celsius|Meters and grams] [please|for me|is what I use|at all times|for everything|is all I know|is what we use here]",
        "[Keep to|Stay with|Go with|Prefer|Choose] [metric|metric units|the metric system|meters and liters|kilometers|metric sizes]",
        "~[Miles|Feet|Pounds|Ounces|Fahrenheit|Miles and feet|Quarts] [mean nothing to me|confuse me|are no use to me|are not for me|tell me nothing][|, use metric|, I need metric]",
        "[Measure|Count|Give sizes|Give lengths|State weights|Tell me temperatures] in [metric|metric units|meters and kilograms|kilometers and liters|Celsius and grams]",
        "~[Your|All|The] [measures|measurements|units|amounts|distances] [should be|must be|have to be|are] [metric|in metric|in metric units]",
    ),
    "british": (
        "[Use|Write in|Write with|Stick to|Keep to|Follow] [British|UK|English, not American,|London] [spelling|English|spellings]",
        "~I [am|come] from [England|London|Britain|the UK|Leeds|Wales], [use British spelling|so spell like us|so write British English|spell the British way]",
        "~[I like|I prefer|I want|I use|I read] [British|UK] [spelling|English]",
        "[Spell|Write] [colour, favourite and centre|neighbour and flavour|organise and colour] [the British way|with British spelling|as in Britain|like that]",
        "~[No|Avoid|Never use|Do not use] American [spelling|spellings|English], [use British|British please|only British]",
        "[Spell|Write] [words|everything|it] [like|as] [the British|they do in Britain|a Brit|people in the UK]",
        "~[British|UK|London|Queen's|King's] [English|spelling|spellings] [please|for me|at all times|is what I read|is what I use|is what we use here|is my spelling]",
        "~[Only|Nothing but|Just] [British|UK|London] [English|spelling|spellings][| please| for me]",
        "~[I live in|My home is|I work in|I was born in|We live in|My school is in] [England|London|Britain|the UK|Leeds|Wales|Scotland|Bristol][|, so spell that way|, so mind the spelling|, and I spell like it|, so use our spelling]",
        "~[Colour, not color|Favourite, not favorite|Neighbour rather than neighbor|Centre instead of center|Flavour and not flavor|Grey, never gray][|, please| in all you write|, as in Britain]",
        "[Make|Keep] [the spelling|your spelling|all spelling|your English] [British|as in the UK|as in Britain|English, not American]",
        "~[Your|The] [spelling|English] [should be|must be|has to be|is] [British|UK English|that of London|that of Britain]",
    ),
    "clock24": (
        "[Use|Write|Show|Give me|Stick to] [24-hour time|the 24-hour clock|24-hour times|times in 24-hour form|military time]",
        "[Write|Show|Give] [times|clock times|the time] [like 16:45|as 20:15|like 08:00|in 24-hour format|on the 24-hour clock]",
        "~[No|Avoid|Never use|Do not use] am [or|and] pm[|, use the 24-hour clock|, only 24-hour time]",
        "~[I like|I prefer|I use|I read] [the 24-hour clock|24-hour time|times like 17:30]",
        "~[Only|Nothing but|Just] [24-hour times|the 24-hour clock|24-hour time|military time][| please| for me]",
        "~[Times|Clock times|The time|All times] [should be|must be|have to be|are] [like|as in|of the form] [18:05|07:30|21:40|13:15|16:50|23:10]",
        "~[It is|Write|Say] [18:05, not 6:05 pm|07:30, not 7:30 am|21:40, not 9:40 pm|13:15, not 1:15 pm]",
        "~[The 24-hour clock|24-hour time|Military time] [please|for me|is what I read|at all times|is what we use here|is easier for me]",
        "[Count|Give|Tell|Write] [hours|the hours|times|clock times] [up to 24|from 0 to 24|on a 24-hour clock|without am or pm]",
    ),
    "iso_date": (
        "[Write|Show|Format|Give] [dates|every date|all dates] [like 2022-10-09|as 2021-04-03|in ISO form|in ISO format|as year-month-day|year first]",
        "[Use|Stick to] [ISO dates|the ISO date format|year-month-day dates|dates like 2020-12-24]",
        "~[I like|I prefer|I want] [ISO dates|dates as year-month-day|dates like 2022-02-22|the year first in dates]",
        "~[Year, then month, then day|Year first in dates|First the year, then the month][|, please| in dates| for each date| with dashes]",
        "[Begin|Start|Open] [dates|a date|every date|each date] with the year",
        "~[Dates|A date|Every date|All dates] [are|is|have to be|should be|should look] [written like|of the form|like|as in] [2019-06-11|2022-04-02|2021-08-30|2018-05-17|2020-11-08]",
        "~[In dates|When you write a date|For dates], [the year comes first|use the ISO form|write it like 2019-07-21|put the year first]",
        "~[I write|We write|I read] [dates|the date] [like|as] [2019-06-11|2022-04-02|2021-08-30|2018-05-17|2020-11-08]",
    ),
    "dmy_date": (
        "[Write|Show|Format|Give] [dates|every date|all dates] [like 3 June 2021|as 9 May 2022|with the day first|as day month year|day first]",
        "[Use|Stick to] [day month year|dates like 7 July 2020|the day before the month]",
        "~[I like|I prefer|I want] [the day first|dates like 1 March 2024|day before month]",
        "~[Day, then month, then year|Day first, then the month|First the day, then the month|The day leads the date][|, please| in dates| for each date| in every date]",
        "[Begin|Start|Open] [dates|a date|every date|each date] with the day",
        "~[In dates|In a date|When you write a date|For dates], [the day comes first|the day goes before the month|put the day first|start with the day]",
        "~[Dates|A date|Every date|All dates] [must be|has to be|have to be|is|are] [written like|of the form|as in] [11 June 2019|2 April 2022|30 August 2021|17 May 2018|8 November 2020]",
        "~[I write|We write|I read] [dates|the date] [like|as] [11 June 2019|2 April 2022|30 August 2021|17 May 2018|8 November 2020]",
    ),
    "number_words": (
        "[Write|Spell|Put|Give|Say] [numbers|all numbers|every number|amounts] [as words|out in words|in words|with letters|out in full]",
        "[Spell out|Write out] [numbers|all numbers|every number|each number]",
        "~[No|Avoid|Never use|Do not use] [digits|figures|numerals][|, use words|, write numbers as words|, spell numbers out]",
        "~[I like|I prefer|I want] [numbers as words|numbers in words|words for numbers|spelled out numbers]",
    ),
    "contractions": (
        "[Use|Write with|Prefer] [contractions|contractions like don't|short forms like it's|forms like can't and don't]",
        "[Be|Sound|Write] [casual|informal|relaxed], [use contractions|with contractions|say don't and it's|like it's and don't]",
        "~[I like|I prefer|I want] [contractions|short forms like don't|it's rather than it is|don't rather than do not]",
        "[Say|Write] [it's, not it is|can't, not cannot|don't and won't|you're, not you are]",
    ),
    "excited": (
        "[Be|Sound|Write|Act] [excited|enthusiastic|thrilled|energetic|very excited|upbeat|cheerful|full of energy]",
        "[Use|Add|Write with|End sentences with] [exclamation marks|lots of exclamation marks|exclamation points]",
        "~[I like|I want|I love|I prefer] [excited|enthusiastic|cheerful|energetic|upbeat] [answers|replies|messages]",
        "[Answer|Reply|Write|Speak] with [excitement|enthusiasm|energy|joy|lots of energy|great cheer]",
        "[Show|Give me] [some|more|lots of|great] [excitement|energy|cheer|enthusiasm|joy]",
        "~[Cheer|Energy|Joy|Excitement|A cheerful tone|An upbeat mood|A lively voice] [please|in every answer|is what I need|helps me|makes my day|is what I want]",
        "[Be|Sound|Write] [as|so] [lively|excited|happy|merry|thrilled|joyful|upbeat] as [possible|you are able to|anyone|a child]",
        "[Cheer me up|Make me smile|Write as if you were thrilled|Sound happy|Write with a big smile|Let me feel your joy|Be lively|Write with passion]",
        "~[Do not|Never] [be dull|sound bored|be flat|sound tired|be so dry][|, be excited|, show some joy|, cheer up]",
        "~[Every|Each] sentence [ends|should end|must end|has to end] [with|in] an exclamation mark",
    ),
    "hedge": (
        "[Say|Write|Use|Add] I think [before|at the start of|when you give|in] [your answer|your advice|every answer|each reply]",
        "[Begin|Start|Open] [your answer|every reply|each answer|with advice] [with|by saying] I think",
        "~[I like|I want|I prefer] [answers that start with|you to say|to hear] I think",
    ),
    "lower": (
        "[Write|Answer|Reply|Type] [in|with|using] [lower case|lowercase|small letters|only small letters|all lower case|lowercase letters only]",
        "[Use|Stick to] [lower case|lowercase|small letters|lowercase only|no capitals]",
        "~[no|avoid|never use|do not use|skip] [capitals|capital letters|upper case|uppercase letters]",
        "~[i like|i prefer|i want] [lower case|lowercase|small letters|everything in lower case]",
    ),
    "upper": (
        "[Write|Answer|Reply|Type|Shout] [in|with|using] [capitals|capital letters|upper case|uppercase|all caps|big letters]",
        "[Use|Stick to] [capitals|upper case|all caps|uppercase letters|capital letters only]",
        "~[I like|I prefer|I want] [capitals|all caps|upper case|everything in capitals]",
    ),
}
