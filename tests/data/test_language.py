"""Languages are guessed where a text says enough, and only a clear guess contradicts a row."""

from __future__ import annotations

import pytest

from avocado.data.language import contradicts, guess

LINES = {
    "de": "Bitte überweisen Sie den Betrag bis Ende März, sonst müssen wir mahnen.",
    "en": "Please transfer the amount by the end of March, or we will have to remind you.",
    "es": "Por favor, transfiera el importe antes de finales de marzo, o tendremos que avisarle.",
    "fr": "Merci de virer le montant avant la fin du mois de mars, sinon nous devrons relancer.",
    "it": "La preghiamo di versare l'importo entro la fine di marzo, altrimenti la solleciteremo.",
    "pt": "Por favor, transfira o montante até ao final de março, senão teremos de o avisar.",
    "nl": "Gelieve het bedrag voor eind maart over te maken, anders sturen wij een herinnering.",
    "pl": "Prosimy o przelanie kwoty do końca marca, w przeciwnym razie wyślemy wezwanie.",
    "ru": "Пожалуйста, переведите сумму до конца марта, иначе нам придётся напомнить.",
    "zh": "请在三月底之前支付这笔款项,否则我们将不得不提醒您。",
    "ja": "三月末までに金額をお振り込みください。そうでなければ催促いたします。",
    "ko": "삼월 말까지 금액을 이체해 주십시오. 그렇지 않으면 독촉하겠습니다.",
    "ar": "يرجى تحويل المبلغ قبل نهاية شهر مارس وإلا سنضطر إلى تذكيركم.",
    "hi": "कृपया मार्च के अंत तक राशि का भुगतान करें, अन्यथा हमें याद दिलाना होगा।",
}


@pytest.mark.parametrize("language", LINES)
def test_a_sentence_is_known(language: str) -> None:
    text = LINES[language]
    found = guess(text)
    assert found.language == language
    assert not contradicts(found, language, text)
    assert not contradicts(found, f"{language}-XX", text)
    other = "en" if language != "en" else "de"
    assert contradicts(found, other, text)


@pytest.mark.parametrize("text", ["", "ok", "12.05.2024 17:30", "a = b(c[0])", "1,234.50 €"])
def test_what_says_too_little_is_undetermined(text: str) -> None:
    found = guess(text)
    assert (found.language, found.probability) == ("und", 0.0)
    assert not contradicts(found, "zh", text)


def test_what_is_not_told_apart_contradicts_nothing() -> None:
    for stated in ("und", "la", "nb", "lb", "tlh", "x-private"):
        assert not contradicts(guess("Nous devrons relancer."), stated, "Nous devrons relancer.")
    for stated in ("yue", "zh_TW", "ZH-Hant"):
        assert not contradicts(guess(LINES["zh"]), stated, LINES["zh"])


def test_a_short_line_seldom_contradicts() -> None:
    """Dates and amounts leave few words; a wrong alarm in a hundred rows would hide the right."""
    task = pytest.importorskip("avocado.demo.task")
    items = task.items(1_000, seed=3)
    wrong = [i for i in items if contradicts(guess(i.text), i.language, i.text)]
    known = [i for i in items if guess(i.text).language == i.language]
    assert len(wrong) <= 1
    assert len(known) > 750
