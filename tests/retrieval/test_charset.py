"""Which encoding a text is in: short sentences of many languages, which statistics misjudge."""

import unicodedata

import pytest

from hanol.retrieval import parse_document
from hanol.retrieval.documents._charset import decode  # private: the decision alone, on bytes

UNICODE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
CENTRAL = ("cp1250", "iso8859-2")
BALTIC = ("cp1257", "iso8859-13")
UKRAINIAN = ("cp1251", "koi8-u", "iso8859-5", "cp1125")
JAPANESE = ("shift_jis", "cp932", "euc_jp")
TEXTS = [
    ("plain ascii\nlines", ("ascii", *UNICODE)),
    ("“No,” she said – it’s a naïve idea…", ("cp1252", *UNICODE)),
    ("Copyright © 2024, naïve", ("latin-1",)),
    # French, German, Spanish, Portuguese, Italian, Swedish, Danish, Icelandic
    ("Le café était fermé, mais le garçon a gardé nos clés.", ("cp1252", "latin-1", *UNICODE)),
    ("Tous les êtres humains naissent libres et égaux en dignité et en droits.", ("cp1252",)),
    ("Déjà vu", ("cp1252",)),
    ("Ça coûte 5 €, c’est déjà payé : « à côté ».", ("cp1252",)),
    ("Größe und Maß: überall schöne Grüße.", ("cp1252", "latin-1")),
    ("Zwölf Boxkämpfer", ("cp1252", *UNICODE)),
    ("¿Cuántos años tiene el niño? Mañana cumple ocho.", ("cp1252",)),
    ("Não há pão, mas a razão e a consciência são deles.", ("cp1252",)),
    ("Perché la città è più bella di così?", ("cp1252",)),
    ("Alla människor är födda fria och lika i värde och rättigheter.", ("cp1252",)),
    ("Alle mennesker er født frie og lige i værdighed. På gensyn!", ("cp1252",)),
    ("Hver maður er borinn frjáls og jafn öðrum að virðingu og réttindum.", ("cp1252",)),
    # Czech, Polish, Hungarian, Slovak, Croatian, Romanian
    ("Příliš žluťoučký kůň úpěl ďábelské ódy.", (*CENTRAL, *UNICODE)),
    ("Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv.", CENTRAL),
    ("Dobrý den, máte prosím čas? Děkuji.", CENTRAL),
    ("Žádná škoda.", CENTRAL),
    ("Zażółć gęślą jaźń. Wszyscy ludzie rodzą się wolni.", CENTRAL),
    ("Dziękuję, do widzenia. Proszę zamknąć drzwi.", CENTRAL),
    ("Gdzie jest łazienka?", CENTRAL),
    ("Árvíztűrő tükörfúrógép működik jól.", CENTRAL),
    ("Jó napot! Köszönöm szépen, jövő héten jövök.", CENTRAL),
    ("Všetci ľudia sa rodia slobodní a sebe rovní, čo sa týka ich dôstojnosti.", CENTRAL),
    ("Sva ljudska bića rađaju se slobodna. Što ćeš?", CENTRAL),
    ("Toate fiinţele umane se nasc libere şi egale în demnitate.", CENTRAL),
    # the same, and western languages, of DOS and Macintosh
    ("Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv.", ("cp852",)),
    ("Árvíztűrő tükörfúrógép, jövő héten is működik.", ("cp852",)),
    ("Größe und Maß: überall schöne Grüße aus Köln, für Ärzte.", ("cp850", "mac-roman")),
    ("Déjà vu : les élèves français étaient fatigués, là-bas.", ("cp850", "mac-roman")),
    ("Kişi İstanbul'da yaşıyor; çok güzel bir şehir, değil mi?", ("cp857",)),
    ("Þetta er íslenskur texti um veðrið í Reykjavík.", ("cp861",)),
    ("A situação não é fácil; amanhã haverá eleições em São Paulo.", ("cp860",)),
    # Esperanto, Kazakh
    ("La ĉefurbo ĝojas; ŝi ĵus aŭdis la ĥoron kaj la ĉevalojn.", ("iso8859-3",)),
    ("Қазақстанның астанасы — Астана. Бүгін ауа райы жақсы, әркім көшеде.", ("kz1048",)),
    # names and headings alone
    ("姓名,城市\n王小明,北京\n李华,上海", ("gbk",)),
    ("项目,金额\n办公用品,300", ("gbk",)),
    ("張偉 高雄", ("big5",)),
    ("氏名,都市\n山田太郎,東京\n佐藤花子,大阪", JAPANESE),
    ("会議資料", JAPANESE),
    ("품목,금액\n연필,300", ("cp949",)),
    # Slovene, Lithuanian, Latvian, Estonian
    ("Vsi ljudje se rodijo svobodni in imajo enako dostojanstvo. Čaščenje žalosti.", CENTRAL),
    ("Visi žmonės gimsta laisvi ir lygūs savo orumu ir teisėmis; jiems suteiktas protas.", BALTIC),
    ("Visi cilvēki piedzimst brīvi un vienlīdzīgi savā pašcieņā un tiesībās.", BALTIC),
    ("Šodien ir jauka diena, bet rīt visu dienu līs.", BALTIC),
    ("Kõik inimesed sünnivad vabadena ja võrdsetena oma väärikuselt ja õigustelt.", ("cp1257",)),
    # Vietnamese, Thai
    ("Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.", ("cp1258",)),
    ("มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ", ("cp874", "tis-620")),
    # Turkish
    ("Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.", ("cp1254", *UNICODE)),
    ("İyi günler, nasılsınız? Teşekkür ederim, çok iyiyim.", ("cp1254",)),
    ("Işık açık mı?", ("cp1254",)),
    ("Çay içer misiniz? Şekersiz olsun.", ("cp1254",)),
    # Hebrew, Arabic
    ("כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.", ("cp1255", "iso8859-8", *UNICODE)),
    ("שלום, מה שלומך היום?", ("cp1255",)),
    ("תודה רבה", ("cp1255",)),
    ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.", ("cp1256", *UNICODE)),
    ("مرحبا", ("cp1256",)),
    # Russian, Ukrainian, Bulgarian, Greek, Thai
    ("Все люди рождаются свободными и равными в своём достоинстве.", ("cp1251", "koi8-r", "cp866")),
    ("Привет, как дела?", ("cp1251", "koi8-r", *UNICODE)),
    ("Спасибо", ("cp1251", "koi8-r")),
    ("ПРИВЕТ, КАК ДЕЛА?", ("cp1251", "koi8-r")),
    ("НЕ КУРИТЬ", ("cp1251", "koi8-r")),
    ("УВАЖАЕМЫЕ ЖИЛЬЦЫ! ЗАВТРА НЕ БУДЕТ ВОДЫ.", ("cp1251", "koi8-r")),
    ("не курить", ("cp1251", "koi8-r")),
    ("Всі люди народжуються вільними і рівними у своїй гідності.", ("cp1251",)),
    ("Всички хора се раждат свободни и равни по достойнство и права.", ("cp1251",)),
    ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι.", ("cp1253", "iso8859-7", *UNICODE)),
    ("Καλημέρα σας", ("cp1253",)),
    ("Τι κάνετε; Είμαι πολύ καλά.", ("cp1253", "iso8859-7")),
    ("นี่คือข้อความภาษาไทยธรรมดาที่มีหลายคำ", ("tis-620", "utf-8", "utf-16")),
    ("Всі люди народжуються вільними і рівними у своїй гідності та правах, її є.", UKRAINIAN),
    ("Все люди рождаются свободными и равными в своём достоинстве.", ("iso8859-5", "mac-cyrillic")),
    ("Сва људска бића рађају се слободна и једнака у достојанству.", ("cp1251", "iso8859-5")),
    ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι.", ("cp737", "mac-greek")),
    ("כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.", ("cp862",)),
    ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.", ("iso8859-6",)),
    ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", ("johab",)),
    # Korean
    ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", ("cp949", "euc-kr")),
    ("한올은 기법을 한데 모아 둔 도구입니다. 값은 3.5 GB이다.", ("cp949", "iso2022_kr", *UNICODE)),
    ("회의는 금요일입니다", ("cp949", "iso2022_kr")),
    ("안녕하세요", ("cp949", "euc-kr", *UNICODE)),
    ("The word 하나 is Korean for one, and 둘이다 for two it is.", ("cp949", "utf-8")),
    # Japanese
    ("すべての人間は、生まれながらにして自由である。", (*JAPANESE, "iso2022_jp", *UNICODE)),
    ("こんにちは、元気ですか？", JAPANESE),
    ("東京タワーの高さは333メートル", JAPANESE),
    ("ありがとう", JAPANESE),
    # Chinese
    ("人人生而自由，在尊严和权利上一律平等。", ("gb18030", "gb2312", *UNICODE)),
    ("你好，请问洗手间在哪里？", ("gb18030",)),
    ("谢谢你", ("gb18030",)),
    ("下一句", ("hz",)),
    ("第一句 and ASCII, 第二句。", ("hz",)),
    ("ｶﾀｶﾅと漢字です。", ("iso2022_jp_ext",)),
    ("人人生而自由，在尊嚴和權利上一律平等。", ("big5", *UNICODE)),
    ("你好，請問洗手間在哪裡？", ("big5",)),
    ("謝謝你", ("big5",)),
]


@pytest.mark.parametrize(("text", "codecs"), TEXTS, ids=[text[:12] for text, _ in TEXTS])
def test_encodings_are_found_out(text: str, codecs: tuple[str, ...]) -> None:
    for codec in codecs:
        data = as_written(text, codec)
        assert unicodedata.normalize("NFC", decode(data)) == text, codec


def as_written(text: str, codec: str) -> bytes:
    """Vietnamese Windows writes tones as marks behind the letters, but keeps the other signs."""
    if codec != "cp1258":
        return text.encode(codec)
    tones = "\u0300\u0301\u0303\u0309\u0323"
    pieces = []
    for char in text:
        apart = unicodedata.normalize("NFD", char)
        tone = next((mark for mark in apart if mark in tones), "")
        pieces.append(
            unicodedata.normalize("NFC", apart.replace(tone, "")) + tone if tone else char
        )
    return "".join(pieces).encode(codec)


@pytest.mark.parametrize(
    ("declared", "codec", "text"),
    [
        ("x-sjis", "cp932", "会議"),
        ("windows-949", "cp949", "회의"),
        ("X-EUC-JP", "euc_jp", "会議"),
        ("x-mac-cyrillic", "mac-cyrillic", "дом"),
        ("windows-874", "cp874", "ดี"),
        ("cp-1250", "cp1250", "kůň"),
        ("iso-8859-9", "cp1254", "“şey”"),
        ("iso-2022-jp", "iso2022_jp_ext", "ｶﾀｶﾅと漢字"),
        ("TIS-620", "cp874", "“ดี”"),
    ],
)
def test_names_that_programs_give_to_encodings(declared, codec, text) -> None:
    assert decode(text.encode(codec), declared) == text


def test_utf_8_that_names_a_default_is_utf_8() -> None:
    for text, declared in (("Музей, café", "iso-8859-1"), ("회의", "windows-1252")):
        assert decode(text.encode(), declared) == text
    assert decode("Musée, café".encode("latin-1"), "iso-8859-1") == "Musée, café"


def test_utf_32_without_mark() -> None:
    for codec in ("utf-32-le", "utf-32-be"):
        assert decode("두 줄의 글\ntwo lines".encode(codec)) == "두 줄의 글\ntwo lines"


def test_characters_that_a_narrower_standard_lacks() -> None:
    for text, codec in (
        ("佢哋嘅說話係噉樣嘅，你哋唔好咁大聲。", "big5hkscs"),
        ("彼は先生に𠮟られた。しかし、その後は皆で楽しく食事をしたのです。", "shift_jis_2004"),
    ):
        assert decode((text * 3).encode(codec)) == text * 3


@pytest.mark.parametrize(
    ("data", "remarked"),
    [
        ("Všichni lidé rodí se svobodní.".encode("cp1250"), False),
        ("회의는 금요일입니다".encode("cp949"), False),
        ("회의는 금요일입니다".encode(), False),
        ("회의는 금요일입니다. ".encode() * 20 + b"\xff", True),
        (bytes(range(0xA1, 0xFF)) * 2, True),
        ("père et mère".encode("cp1252"), True),  # or p\u010dre in Croatian
    ],
)
def test_doubtful_readings_are_named(data, remarked) -> None:
    assert bool(parse_document("x.txt", data).remarks) == remarked
