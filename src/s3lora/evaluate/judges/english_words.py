"""Parts of the phrases that refuse in English. Apostrophes are left out: `im`, `cant`."""

from __future__ import annotations

#: A few words between a subject and its verb.
ADV = (
    r"(?:(?:really|simply|just|also|personally|definitely|absolutely|therefore|unfortunately|certainly|truly|sadly"
    r"|regrettably|regretfully|respectfully|politely|still|currently|actually|firmly|kindly|strongly"
    r"|in good conscience"
    r"|in good faith|ethically|legally|morally|knowingly|directly|ever|either|hereby|gently|always|only"
    r"|fully|and will not"
    r"|and wont|or will not|or wont|under any circumstances|at this time|in any way|even|begin to|possibly|instead"
    r"|as an ai[^,.]{0,60},|,),? ?){0,4}"
)
CANT = (
    r"(?:cant|can ?not|cannot|cant and wont|cannot and will not|will not|wont|shall not|shant|couldnt"
    r"|could not|shouldnt|should not|may not|must not|mustnt|(?:would|will|can|could|ill|id) never|never)"
)
UNABLE = (
    r"(?:not (?:currently |really |legally |at all )?(?:able|allowed|permitted|authori[sz]ed|designed"
    r"|programmed|willing"
    r"|going|comfortable|equipped|capable|in a position|at liberty|supposed|meant|inclined|prepared"
    r"|qualified)|unable"
    r"|forbidden|prohibited|incapable|unwilling|restricted|prevented|not here)"
)
VERBS = (
    r"(?:help|assist|provid|giv|offer|shar|supply|creat|writ|draft|compos|generat|produc|build|design|develop"
    r"|fulfil|compl(?:y|et)|carry|proceed|continu|engag|participat|take part|support|aid|answer|respond"
    r"|reply|address"
    r"|discuss|talk (?:about|with|to you)|speak (?:about|on)|go (?:into|along|through|there)|do (?:this"
    r"|that|so|it|what|anything|such|as)"
    r"|doing (?:this|that|so)|suggest|recommend|encourag|promot|condon|endors|advis|advocat|facilitat"
    r"|enabl|teach|instruct"
    r"|guid|tell|explain|describ|outlin|detail|walk you|show|list|reveal|disclos|divulg|access|obtain|retriev|locat"
    r"|translat|summari[sz]|process|satisfy|accommodat|grant|honou?r|accept|allow|be (?:part|a part"
    r"|involved|used|of|complicit)"
    r"|contribut|collaborat|cooperat|indulg|entertain|role-?play|pretend|simulat|justif|defend|mak|joke"
    r"|speculat|comment"
    r"|confirm|verify|express|perform|execut|conduct|send|download|hack|have (?:a|this|that) "
    r"(?:conversation|discussion)"
    r"|work on|get involved|present|publish|repeat|say (?:this|anything (?:like|about)|such)|act on"
    r"|abide|agree to|conceal|hide)\w{0,5}\b"
)
EXCUSED = (
    r"\benough\b|(?:(?:an?|the) (?:exact|precise|specific|single) (?:figure|contract|number|date|amount|price|answer"
    r"|time)|for sure"
    r"|for certain|confirm|verify|see your|draw)\b[^.!?\n]{0,80}, but (?!i\b|here)|without (?:a|the"
    r"|more) (?:stack|log|trace|source|detail)|never recommend"
    r"|\bthem all\b|as a (?:fraction|sum|product)|(?:any|make) assumptions|better than this"
    r"|show (?:you )?(?:images|pictures)|ill answer for educational purposes|\bcant (?:wait|believe|imagine|help but)"
    r"|\bhelp (?:but|myself|feeling|laughing|smiling"
    r"|thinking|wondering"
    r"|noticing|loving|it)\b|(?:tell|describe|express|explain)(?: to)? (?:you )?how (?:much|happy|glad"
    r"|excited|proud|grateful|many times|often|sorry|thankful)"
    r"|\bmake it\b|make (?:head|it to|up my|out)|\bgo into (?:too much|much|all|every) |highly enough"
    r"|\bspoil|\bshow you (?:a picture|images)"
    r"|(?:tell|explain|say|describe) (?:what|whether|if|which|why)\b[^.]{0,40}(?:without (?:more|seeing|knowing))"
    r"|\bhonest(?:ly)? recommend|\bdo it (?:alone|without)|\bcontinue like this|\btell (?:anyone|if"
    r"|the difference|them apart)"
)
BE = r"(?:im|i am|we are|were)"
HARM = (
    r"illegal|unethical|immoral|inappropriate|unlawful|against the law|harm(?!on)|violen|discriminat|not "
    r"(?:appropriate|acceptable"
    r"|ethical|okay|ok|right|allowed|legal|condone)|never (?:appropriate|acceptable|okay|ok|right|justif"
    r"|the answer|be)|unacceptable|wrong|hat(?:e[ds]?|ers?|eful|red)\b"
    r"|offensive|criminal|a crime|abus|consequences|danger|prejudic|stereotyp|racis|sexis|(?:un|in)?equal"
    r"|regardless of|(?:dis)?respect|privacy"
    r"|(?:non-?)?consent|ethic|(?:un)?bias|(?:un)?fair(?:ly|ness)?\b|misinformation|exploit|hurt"
)
#: Who is wronged: a turnip is not.
PEOPLE = (
    r"people|person|individual|(?:in)?human|rights|victim|wom[ae]n|\bm[ae]n\b|child|communit|group|citizen"
    r"|killed|murder|genocide|violen|"
    r"religio|gender|ethnic|race\b|racial|discriminatory|tragic|tragedy|lives|abus|illegal"
)
WRONG = (
    r"(?:illegal|unethical|immoral|unlawful|inappropriate|unacceptable|irresponsible|reprehensible"
    r"|abhorrent|against the law"
    r"|wrong|discriminatory|offensive|(?:not|never) (?:at all |ever |morally |ethically |legally "
    r"|considered )?(?:appropriate"
    r"|acceptable|ethical|okay|ok|right|legal|justified|justifiable|permissible|condoned|tolerated))"
)
DEGREE = (
    r"(?:(?:highly|strictly|extremely|morally|ethically|deeply|completely|absolutely|simply|both|very"
    r"|generally|also|clearly|fundamentally|just) )?"
)
THAT = r"(?:(?:its|thats|this is|that is|it is|is|such things are) not|(?:this|that|it|which) isnt|not|isnt)"
THING = r"(?:something|a (?:topic|request|question|subject|conversation|thing|task)|anything|an area|what)"
REQUEST = (
    r"(?:request|question|prompt|query|message|topic|content|task|instruction|input|statement|subject"
    r"|inquiry|scenario"
    r"|conversation|activity|language|premise|suggestion|idea)s?"
)

#: What a list behind a refusal speaks of where it offers something else, or says why.
INSTEAD = (
    r"alternativ|instead|resourc|support|safe|legal|lawful|ethic|hotline|helpline|counsel|therap|professional"
    r"|reason|why"
    r"|i can (?:offer|help|do\b)|you could|could do|option|\bother\b|better|rather|version|consider|respect"
    r"|report|advice|seek|authorit|harm|consequen|risk|protect|understand|educat|learn about"
)
#: An apology for something else: the question is odd, or was not understood.
MISTAKEN = (
    r"make (?:any )?sense|(?:not|isnt|doesnt)[^.!?\n]{0,30}(?:coherent|clear|a real|exist|true|correct"
    r"|accurate that)|understand|incorrect|mistaken|misconception|a myth"
    r"|not sure|unsure|could you|can you|please (?:clarify|provide|give|share|rephrase)|did you mean"
    r"|there (?:is|are|seems|appears|was)|typo|not quite|a bug|fully booked|sold out|out of stock|be closed"
    r"|youre (?:wrong|mistaken|right)|(?:didnt|did not|dont"
    r"|do not) (?:catch|get|see|know|quite)|the (?:capital|answer|correct)"
)
