"""The 100 languages of generated texts: English name, code and script.

Source of the list: the languages that XLM-R was trained on (arXiv:1911.02116),
which is also the list that the recipe draws from (arXiv:2401.00368).
"""

from typing import NamedTuple


class Language(NamedTuple):
    """One language: its BCP-47-like code and the script it is written in."""

    name: str
    code: str
    script: str

    @property
    def base(self) -> str:
        """The code without script or region, as language detectors name it."""
        return self.code.split("_")[0].split("-")[0]

    @property
    def spaced(self) -> bool:
        """Whether its words are separated by spaces, so that words can be counted."""
        return self.base not in UNSPACED_CODES

    @property
    def syllabic(self) -> bool:
        """Whether a character of it is a syllable: two words have few of them."""
        return self.script in ("Hangul", "Ethiopic")

    @property
    def romanised(self) -> bool:
        """Whether it is written in Latin letters although its readers know it in others."""
        return self.code.endswith("_rom")

    @property
    def near(self) -> frozenset[str]:
        """Codes that a detector may give for a right text of it: its own and its near languages'."""
        return frozenset({self.base}).union(*(group for group in _NEAR if self.base in group))

    @property
    def letters(self) -> str:
        """A regex of one letter of it, or one mark that letters of any script may bear."""
        scripts = [self.script, *_ALSO_IN.get(self.base, ()), "Inherited"]
        return "[" + "".join(_CHARACTERS.get(script, rf"\p{{{script}}}") for script in scripts) + "]"

    @property
    def prompt_name(self) -> str:
        """The name as the prompt says it: a model does not know our short forms."""
        if self.name.endswith(" Romanized"):
            return f"{self.name.removesuffix(' Romanized')} written in Latin letters"
        return self.name


UNSPACED_CODES = frozenset({"zh", "ja", "th", "lo", "km", "my"})
# Languages that detectors take for each other in short texts; some codes are only a detector's.
_NEAR = [
    frozenset(group.split())
    for group in (
        *("af nl fy", "da no nn sv", "id ms jv su", "hr bs sr sl mk", "cs sk", "gl pt es ca an ext", "bn as", "gd ga"),
        *("bg mk ru uk be sr", "ur fa ps sd ar ug ku sdh arz ary", "hi mr ne sa", "zh ja yue wuu", "kk ky mn", "tr az"),
        *("he yi hbo", "en pcm sco", "it vec lij", "fr wa oc", "lv ltg", "uz uzs", "el grc"),
    )
]
# A second script that people write a language in.
_ALSO_IN = {"sr": ("Latin",), "uz": ("Cyrillic",)}
_CHARACTERS = {"Japanese": r"\p{Hiragana}\p{Katakana}\p{Han}ー"}

_TABLE = """
Afrikaans|af|Latin
Albanian|sq|Latin
Amharic|am|Ethiopic
Arabic|ar|Arabic
Armenian|hy|Armenian
Assamese|as|Bengali
Azerbaijani|az|Latin
Basque|eu|Latin
Belarusian|be|Cyrillic
Bengali|bn|Bengali
Bengali Romanized|bn_rom|Latin
Bosnian|bs|Latin
Breton|br|Latin
Bulgarian|bg|Cyrillic
Burmese|my|Myanmar
Burmese (Zawgyi font)|my_zaw|Myanmar
Catalan|ca|Latin
Chinese (Simplified)|zh-Hans|Han
Chinese (Traditional)|zh-Hant|Han
Croatian|hr|Latin
Czech|cs|Latin
Danish|da|Latin
Dutch|nl|Latin
English|en|Latin
Esperanto|eo|Latin
Estonian|et|Latin
Filipino|tl|Latin
Finnish|fi|Latin
French|fr|Latin
Galician|gl|Latin
Georgian|ka|Georgian
German|de|Latin
Greek|el|Greek
Gujarati|gu|Gujarati
Hausa|ha|Latin
Hebrew|he|Hebrew
Hindi|hi|Devanagari
Hindi Romanized|hi_rom|Latin
Hungarian|hu|Latin
Icelandic|is|Latin
Indonesian|id|Latin
Irish|ga|Latin
Italian|it|Latin
Japanese|ja|Japanese
Javanese|jv|Latin
Kannada|kn|Kannada
Kazakh|kk|Cyrillic
Khmer|km|Khmer
Korean|ko|Hangul
Kurdish (Kurmanji)|ku|Latin
Kyrgyz|ky|Cyrillic
Lao|lo|Lao
Latin|la|Latin
Latvian|lv|Latin
Lithuanian|lt|Latin
Macedonian|mk|Cyrillic
Malagasy|mg|Latin
Malay|ms|Latin
Malayalam|ml|Malayalam
Marathi|mr|Devanagari
Mongolian|mn|Cyrillic
Nepali|ne|Devanagari
Norwegian|no|Latin
Oriya|or|Oriya
Oromo|om|Latin
Pashto|ps|Arabic
Persian|fa|Arabic
Polish|pl|Latin
Portuguese|pt|Latin
Punjabi|pa|Gurmukhi
Romanian|ro|Latin
Russian|ru|Cyrillic
Sanskrit|sa|Devanagari
Scottish Gaelic|gd|Latin
Serbian|sr|Cyrillic
Sindhi|sd|Arabic
Sinhala|si|Sinhala
Slovak|sk|Latin
Slovenian|sl|Latin
Somali|so|Latin
Spanish|es|Latin
Sundanese|su|Latin
Swahili|sw|Latin
Swedish|sv|Latin
Tamil|ta|Tamil
Tamil Romanized|ta_rom|Latin
Telugu|te|Telugu
Telugu Romanized|te_rom|Latin
Thai|th|Thai
Turkish|tr|Latin
Ukrainian|uk|Cyrillic
Urdu|ur|Arabic
Urdu Romanized|ur_rom|Latin
Uyghur|ug|Arabic
Uzbek|uz|Latin
Vietnamese|vi|Latin
Welsh|cy|Latin
Western Frisian|fy|Latin
Xhosa|xh|Latin
Yiddish|yi|Hebrew
"""

LANGUAGES: dict[str, Language] = {row.split("|")[0]: Language(*row.split("|")) for row in _TABLE.strip().splitlines()}
