"""Does a person ask, in twelve languages, and what a person might make of it. All texts are our own."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.phrases import languages
from handlers.request import Suggestion
from handlers.sender_source import Kind, SenderSource
from handlers.suggestion import asks, quoted_refs, suggest
from handlers.tag import Tag
from tests.unit.letters import JANE, KEYS, read, rows, tagged

FROM_JANE = "From: Jane <jane@example.com>\nTo: news@acme.example\n"

ASKS = {
    "English": [
        "Please remove me from your list.", "unsubscribe", "Hi,\n\ntake me off this list, please.\n\nJane",
        "I no longer wish to\nreceive these emails.", "STOP SENDING ME THIS!!!", "Kindly opt me out.",
        "So, please unsubscribe me",
        "I don't want to receive any more of this", "How do I unsubscribe?", "Remove my email address", "cancel my subscription",
        "I did not sign up for this, so please remove me.", "I’ve never asked for this. Don’t send me anything else.",
        "Why am I getting this? I would like to unsubscribe from all of it.",
    ],
    "German": [
        "Bitte melden Sie mich ab.", "Abmelden", "Ich möchte keine E-Mails mehr bekommen.", "Newsletter abbestellen bitte",
        "Bitte nehmen Sie mich aus dem Verteiler!", "Bitte löschen Sie meine E-Mail-Adresse.", "Streichen Sie mich bitte.",
        "Hiermit bitte um Abmeldung", "Ich möchte Ihren Newsletter nicht mehr erhalten", "Moechte mich abmelden",
    ],
    "French": [
        "Merci de me désinscrire.", "Désabonnement", "Desabonnez-moi svp", "Je ne souhaite plus recevoir vos courriels.",
        "Veuillez me retirer de votre liste", "Supprimez mon adresse de vos fichiers", "Arrêtez de m'envoyer des mails",
        "Je veux annuler mon abonnement.", "N'oubliez pas de me désabonner", "Stop, merci",
    ],
    "Spanish": [
        "Quiero darme de baja.", "Baja", "No quiero recibir más correos", "Por favor, elimínenme de su lista.",
        "Cancelar mi suscripcion por favor", "Dejen de enviarme publicidad", "Quisiera dejar de recibir esto",
        "No me envíen más mensajes", "Solicito la baja del boletín",
    ],
    "Italian": [
        "Cancellatemi dalla lista, grazie.", "Cancellazione", "Non voglio più ricevere le vostre email",
        "Vorrei disiscrivermi dalla newsletter", "Per favore rimuovetemi", "Vi prego di cancellare il mio indirizzo",
        "Smettete di inviarmi questa roba", "Basta, grazie", "Desidero annullare la mia iscrizione",
    ],
    "Portuguese": [
        "Quero cancelar a minha inscrição.", "Descadastrar", "Por favor removam meu e-mail da lista",
        "Não quero mais receber esses e-mails", "Parem de me enviar propaganda", "Gostaria de cancelar a subscrição",
        "Me tirem dessa lista", "Não me enviem mais nada", "Desejo deixar de receber isto",
    ],
    "Dutch": [
        "Schrijf mij uit, alstublieft.", "Uitschrijven", "Ik wil deze mails niet meer ontvangen",
        "Graag afmelden voor deze nieuwsbrief", "Haal me van de lijst", "Verwijder mijn e-mailadres", "Geen mails meer, graag",
        "Meld me af", "Stop met mailen",
    ],
    "Polish": [
        "Proszę mnie wypisać z listy.", "Rezygnacja", "Nie chcę otrzymywać tych wiadomości", "Wypiszcie mnie",
        "Proszę o usunięcie mojego adresu", "Rezygnuję z newslettera", "Usuńcie mnie z bazy",
        "Prosze nie wysylac mi wiecej ofert",
        "Chciałbym się wypisać",
    ],
    "Swedish": [
        "Avregistrera mig, tack.", "Avregistrera", "Ta bort mig från listan", "Jag vill inte ha fler mejl från er",
        "Sluta skicka reklam till mig", "Vill avsluta prenumerationen", "Jag vill inte längre få era nyhetsbrev",
        "Inga fler utskick, tack", "Stryk mig ur registret",
    ],
    "Japanese": [
        "配信停止をお願いします。", "配信停止", "メールマガジンの登録を解除してください。", "今後のメールは不要です。",
        "もうメールを送らないでください", "退会したいです", "このアドレスを削除してください", "メルマガを停止してください。",
        "購読をやめたいと思います",
    ],
    "Chinese": [
        "请帮我退订，谢谢。", "退订", "我想取消订阅", "請取消訂閱", "不要再发邮件给我了", "請將我從名單中移除",
        "我不想再收到这些邮件", "请停止发送", "请删除我的邮箱地址",
    ],
    "Russian": [
        "Отпишите меня, пожалуйста.", "Отписаться", "Не хочу получать ваши письма", "Удалите мой адрес из базы",
        "Прекратите рассылку!", "Хочу отписаться", "Больше не присылайте мне рекламу", "Прошу исключить меня из списка",
        "Отмените подписку",
    ],
}  # fmt: skip

DOES_NOT_ASK = {
    "English": [
        "Please do NOT unsubscribe me!", "I don't want to unsubscribe.", "Why did you unsubscribe me?", "Don't remove me, please",
        "I never asked to be removed from the list", "Please remove the shelf from my order", "Subscribe me, please",
        "Thanks for the catalogue, I would like to order.", "The stop at the station is closed today, so take bus number nine.",
        "You cannot unsubscribe me that easily :-)",
    ],
    "German": [
        "Bitte nicht abmelden!", "Ich möchte mich nicht vom Newsletter abmelden.", "Ich will mich nicht abmelden",
        "Ich möchte mich für den Kurs am Montag abmelden, meine Bestellung bleibt.", "Bitte melden Sie sich bei mir.",
        "Bitte nehmen Sie mich in den Verteiler auf", "Löschen Sie meine Bestellung",
    ],
    "French": [
        "Surtout ne me désabonnez pas !", "Je ne veux pas me désabonner", "Merci de ne pas me désabonner.",
        "Je voudrais m'abonner à la lettre", "Quand puis-je retirer mon colis ?", "Pourquoi m'avez-vous désabonnée ?",
    ],
    "Spanish": [
        "No quiero darme de baja", "No me den de baja, por favor", "Quiero suscribirme al boletín", "¿Cuándo llega mi pedido?",
        "Nunca he pedido darme de baja", "Quiero cancelar mi pedido",
    ],
    "Italian": [
        "Non cancellatemi!", "Non voglio disiscrivermi", "Vorrei iscrivermi alla newsletter", "Cancellate il mio ordine",
        "Non ho chiesto di essere cancellato", "Quando arriva il pacco?",
    ],
    "Portuguese": [
        "Não quero cancelar a inscrição", "Não removam meu e-mail", "Quero me inscrever na lista", "Removam meu pedido de ontem",
        "Nunca pedi para me remover", "Quando chega a encomenda?",
    ],
    "Dutch": [
        "Ik wil me niet uitschrijven", "Ik wil niet uitschrijven van de nieuwsbrief", "Meld mij aan voor de nieuwsbrief",
        "Verwijder mijn bestelling", "Ik heb nooit willen afmelden voor de nieuwsbrief", "Wanneer komt mijn pakket?",
    ],
    "Polish": [
        "Nie chcę się wypisać", "Nie wypisujcie mnie", "Chcę się zapisać", "Rezygnuję z zamówienia numer dwa",
        "Kiedy przyjdzie paczka?", "Nie chcę już tego koloru",
    ],
    "Swedish": [
        "Avregistrera mig inte!", "Jag vill inte avregistrera mig", "Jag vill prenumerera på nyhetsbrevet", "När kommer paketet?",
        "Ta bort min beställning", "Ta inte bort mig",
    ],
    "Japanese": [
        "配信を停止しないでください。", "退会したくありません", "メルマガを登録したいです", "注文の商品はいつ届きますか",
        "配信停止を希望しません", "資料を送ってください",
    ],
    "Chinese": [
        "请不要退订", "我不想取消订阅", "为什么退订了", "我想订阅你们的邮件", "请不要帮我取消订阅", "我的包裹什么时候到？",
    ],
    "Russian": [
        "Не хочу отписываться от рассылки", "Я не хочу отписаться", "Не отписывайте меня", "Хочу подписаться",
        "Когда придёт заказ?",
        "Никогда не просил отписать меня",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("language", "text"), [(name, text) for name, texts in ASKS.items() for text in texts])
def test_a_person_asks(language: str, text: str) -> None:
    found = asks(read(f"{FROM_JANE}Subject: Hello\n\n{text}\n"))

    assert found.startswith(f"{language}: ") or (found and text in ("Stop, merci",))


@pytest.mark.parametrize(("language", "text"), [(name, text) for name, texts in DOES_NOT_ASK.items() for text in texts])
def test_a_person_asks_for_something_else(language: str, text: str) -> None:
    assert asks(read(f"{FROM_JANE}Subject: Hello\n\n{text}\n")) == ""


@pytest.mark.parametrize(("language", "text"), [(name, texts[1]) for name, texts in ASKS.items()])
def test_the_subject_asks(language: str, text: str) -> None:
    encoded = f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="

    assert asks(read(f"{FROM_JANE}Subject: {encoded}\n\n"))
    assert asks(read(f"{FROM_JANE}Subject: Re: {encoded}\n\n"))


def test_every_language_has_phrases_and_counterexamples() -> None:
    names = {language.name for language in languages()}

    assert names == set(ASKS) == set(DOES_NOT_ASK)
    assert all(len(texts) >= 8 for texts in ASKS.values())


# --- the person's own words

QUOTATIONS = {
    "marks": "> please unsubscribe me\n> remove me",
    "attribution": "On Tue, 3 Mar 2026 at 10:02, News <news@acme.example> wrote:\n\nunsubscribe me",
    "attribution in two lines": "On Tue, 3 Mar 2026 at 10:02, Unsubscribe me <news@acme.example>\nwrote:\n\nunsubscribe me",
    "Outlook": "-----Original Message-----\nFrom: News\nunsubscribe me",
    "Outlook's header block": "From: News <news@acme.example>\nSent: Tuesday\nTo: Jane\nSubject: x\n\nunsubscribe me",
    "Outlook's rule": "________________________________\nunsubscribe me",
    "Apple, forwarded": "Begin forwarded message:\n\nunsubscribe me",
    "Gmail, forwarded": "---------- Forwarded message ---------\nunsubscribe me",
    "a signature": "-- \nAcme Inc. To unsubscribe from these mails, unsubscribe me",
    "German": "Am 03.03.2026 um 10:02 schrieb News <news@acme.example>:\n\nunsubscribe me",
    "German Outlook": "Von: News\nGesendet: Dienstag\nAn: Jane\nBetreff: x\n\nunsubscribe me",
    "German mark": "-----Ursprüngliche Nachricht-----\nunsubscribe me",
    "French": "Le mar. 3 mars 2026 à 10:02, News <news@acme.example> a écrit :\n\nunsubscribe me",
    "French Outlook": "De : News\nEnvoyé : mardi\nÀ : Jane\nObjet : x\n\nunsubscribe me",
    "Spanish": "El mar, 3 mar 2026 a las 10:02, News (<news@acme.example>) escribió:\n\nunsubscribe me",
    "Italian": "Il giorno mar 3 mar 2026 alle ore 10:02 News <news@acme.example> ha scritto:\n\nunsubscribe me",
    "Portuguese": "Em ter., 3 de mar. de 2026 às 10:02, News <news@acme.example> escreveu:\n\nunsubscribe me",
    "Dutch": "Op di 3 mrt 2026 om 10:02 schreef News <news@acme.example>:\n\nunsubscribe me",
    "Polish": "wt., 3 mar 2026 o 10:02 News <news@acme.example> napisał(a):\n\nunsubscribe me",
    "Swedish": "Den tis 3 mars 2026 kl 10:02 skrev News <news@acme.example>:\n\nunsubscribe me",
    "Japanese": "2026年3月3日(火) 10:02 News <news@acme.example>:\n\nunsubscribe me",
    "Japanese Outlook": "差出人: News\n送信日時: 2026年3月3日\n宛先: Jane\n件名: x\n\nunsubscribe me",
    "Chinese": "News <news@acme.example> 于2026年3月3日周二 10:02写道：\n\nunsubscribe me",
    "Chinese mark": "------------------ 原始邮件 ------------------\nunsubscribe me",
    "Russian": "вт, 3 мар. 2026 г. в 10:02, News <news@acme.example> написал(а):\n\nunsubscribe me",
    "Russian Outlook": "От: News\nОтправлено: вторник\nКому: Jane\nТема: x\n\nunsubscribe me",
}


@pytest.mark.parametrize("form", QUOTATIONS)
def test_what_is_quoted_does_not_ask(form: str) -> None:
    head = f"{FROM_JANE}Subject: Re: the catalogue\n\n"

    assert asks(read(f"{head}What does the shelf cost?\n\n{QUOTATIONS[form]}\n")) == ""
    assert asks(read(f"{head}Remove me!\n\n{QUOTATIONS[form]}\n")) == 'English: "remove me"'


def test_who_writes_below_the_quotation_is_heard() -> None:
    text = "On Tue, 3 Mar 2026, News <n@acme.example> wrote:\n> Offers\n> and more\n\nRemove me\n"

    assert asks(read(f"{FROM_JANE}\n{text}"))


HTML = "Content-Type: text/html; charset=utf-8\n\n"


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ("<html><head><style>p{color:red}</style></head><body><p>Remove&nbsp;me!</p></body></html>", True),
        ('<div>Nice shelf</div><div class="gmail_quote">unsubscribe me</div>', False),
        ("<p>Nice shelf</p><blockquote>unsubscribe me</blockquote>", False),
        ('<div>Nice</div><div id="divRplyFwdMsg">remove me</div>', False),
        ("<div>Nice</div><hr><b>From:</b> News<br><b>Sent:</b> today<br>unsubscribe me", False),
        ("<header>Remove me</header>", True),
        ("<style>remove me", False),
        ("<script>x</script><p>take me<br>off", True),
        ("remove me &#" + "9" * 5000 + ";", True),
        ("<p>" + "a few words " * 100 + "so remove me</p>", True),
    ],
)
def test_html_is_read_as_a_person_sees_it(body: str, asked: bool) -> None:
    assert bool(asks(read(FROM_JANE + HTML + body))) is asked


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "x-unknown"])
def test_encodings_are_undone(encoding: str, charset: str) -> None:
    raw = "Désabonnez-moi".encode("utf-8" if charset == "x-unknown" else charset)
    if encoding == "base64":
        raw = base64.encodebytes(raw)
    elif encoding == "quoted-printable":
        raw = raw.replace(b"\xc3\xa9", b"=C3=A9").replace(b"\xe9", b"=E9")
    part = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    alternative = b"Content-Type: multipart/alternative; boundary=b\n\n--b\n" + part + raw + b"\n--b--\n"

    assert asks(read(FROM_JANE.encode() + part + raw)) == 'French: "desabonnez moi"'
    assert asks(read(FROM_JANE.encode() + alternative)) == 'French: "desabonnez moi"'


@pytest.mark.parametrize(
    "headers",
    [
        "Auto-Submitted: auto-replied\n", "Precedence: bulk\n", "Precedence: list\n", "List-Id: <x.example>\n",
        "List-Unsubscribe: <mailto:x@y.example>\n", "X-Autoreply: yes\n", "Return-Path: <>\n",
        "Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n",
        "X-Failed-Recipients: a@b.example\n",
    ],
)  # fmt: skip
def test_machines_and_lists_ask_nothing(headers: str) -> None:
    assert asks(read(f"{headers}{FROM_JANE}Subject: unsubscribe\n\nplease remove me\n")) == ""


def test_a_mail_clients_own_function_asks() -> None:
    apple = f"{FROM_JANE}Auto-Submitted: auto-replied\nX-Apple-Unsubscribe: true\n\n"

    assert asks(read(apple)) == "unsubscribe function of apple-mail"


# --- what a person might make of it

FIXED = SenderSource("acme", Kind.ADDRESS, "unsubscribe@acme.example", group=3)
REPLY = FROM_JANE + "Subject: Re: Offers\n\nremove me\n\n> Offers\n> To leave: "


def suggested(text: str, senders: tuple[str, ...] = ("acme", "beta"), **more: object) -> Suggestion | None:
    return suggest(read(text), KEYS, [FIXED], senders, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "where",
    [
        "mailto:TAG",
        "<TAG>.",
        "https://unsub.example.com/u/LINK",
        "https://unsub.example.com/p/LINK.",
        "mailto:PERCENT?subject=x",
    ],
)
def test_a_tag_in_the_quotation_names_all(where: str) -> None:
    local_part = tagged().partition("@")[0]
    where = where.replace("LINK", local_part.removeprefix("u+"))
    where = where.replace("PERCENT", tagged().replace("+", "%2B").replace("@", "%40"))

    found = suggested(REPLY + where)

    assert found == Suggestion(
        "acme", 12, "jane@example.com", 'English: "remove me"; signed tag in the body, the author\'s own'
    )


def test_the_authors_own_tag_comes_before_others() -> None:
    other = tagged(Tag("beta", 1, "john@example.com"))

    assert (suggested(REPLY + other + " " + tagged()) or FIXED).sender == "acme"
    assert (suggested(REPLY + other) or FIXED).sender == "beta"


def test_a_tag_in_an_html_link_or_an_attached_mail() -> None:
    link = f'<p>remove me</p><blockquote><a href="mailto:{tagged()}">leave</a></blockquote>'
    attached = (
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nremove me\n--b\nContent-Type: message/rfc822\n\n"
        f"List-Unsubscribe: <mailto:{tagged()}>\n\nOffers\n--b--\n"
    )

    assert (suggested(FROM_JANE + HTML + link) or FIXED).group == 12
    assert (suggested(FROM_JANE + attached) or FIXED).group == 12


def test_a_stored_tag_needs_its_row() -> None:
    text = REPLY + tagged(opaque=True)

    refs = quoted_refs(read(text))

    assert refs == list(rows(JANE))
    assert quoted_refs(read(text.replace("remove me", "hello"))) == []
    assert (suggested(text, rows=rows(JANE)) or FIXED).group == 12
    assert (suggested(text) or FIXED).sender == ""


def test_a_forged_tag_is_no_evidence() -> None:
    assert suggested(REPLY + tagged().replace("-12-", "-13-")) == Suggestion(
        "", 0, "jane@example.com", 'English: "remove me"; sender not known, recipient taken from From'
    )


def test_a_senders_own_address_names_the_sender() -> None:
    found = suggested("From: jane@example.com\nTo: unsubscribe@acme.example\nSubject: unsubscribe\n\n")

    assert found == Suggestion(
        "acme", 3, "jane@example.com", 'English: "unsubscribe"; to a fixed address of this sender'
    )


def test_the_only_sender_is_meant() -> None:
    found = suggested(REPLY, senders=("acme",))

    assert found == Suggestion(
        "acme", 0, "jane@example.com", 'English: "remove me"; the only sender, recipient taken from From'
    )


@pytest.mark.parametrize(
    "text",
    [
        FROM_JANE + "\nWhen does the shelf arrive?", "From: a@b.example, c@d.example\n\nremove me",
        "To: x@y.example\n\nremove me",
        "From: a@b.example\nFrom: c@d.example\n\nremove me",
    ],
)  # fmt: skip
def test_nothing_to_suggest(text: str) -> None:
    assert suggested(text) is None


# --- hostile input


@given(st.binary(max_size=2000))
def test_any_body_is_read(body: bytes) -> None:
    asks(read(FROM_JANE.encode() + HTML.encode() + body))
    suggest(read(FROM_JANE.encode() + b"Subject: unsubscribe\n\n" + body), KEYS, [FIXED], ["acme"])


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    asks(read(FROM_JANE + "Content-Type: text/plain; charset=utf-8\n\n" + text.encode("utf-8", "replace").decode()))


@pytest.mark.parametrize(
    "unit",
    [
        "<style", "<style></", "<div", "&#", "> ", "On 1, wrote:\n", "From: 1\n", "don't want to ", "remove me not ",
        "-----\n", "a" * 15,
        "amaaaaaaaaaaaaa-a-1-", "ha", "do not unsubscribe me ", "配信停止しないで", "\u0301", "\n", "_", "%2b", "--b\n", "不要",
    ],
)  # fmt: skip
def test_hostile_text_takes_linear_time(unit: str) -> None:
    for kind in ("text/html", "text/plain", "multipart/mixed; boundary=b"):
        text = f"{FROM_JANE}Subject: unsubscribe\nContent-Type: {kind}; charset=utf-8\n\n" + unit * (
            250_000 // len(unit.encode())
        )
        started = time.process_time()
        suggest(read(text), KEYS, [FIXED], ["acme"])
        asks(read(text.replace("unsubscribe\n", "x\n", 1)))

        assert time.process_time() - started < 3
