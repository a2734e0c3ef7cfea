"""The sentences of the demo's task. Each holds ``{date}`` and ``{amount}``, words of its own
language, which settle how a short date or a number is to be read, and no digit of its own.
"""

from __future__ import annotations

from typing import Final

PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "de": (
        "Rechnung vom {date} über {amount}.",
        "Am {date} haben wir {amount} bezahlt.",
        "{who}: {amount}, fällig am {date}",
        "Bitte überweisen Sie {amount} bis zum {date}.",
        "{what} für {amount}, geliefert am {date}.",
        "Quittung vom {date}, Summe {amount}",
        "Der Betrag von {amount} wurde am {date} gutgeschrieben.",
        "{who} hat am {date} {amount} überwiesen.",
        "Datum: {date}\nBetrag: {amount}",
        "Die Miete ({amount}) ist am {date} fällig.",
        "Bestellung vom {date}: {what}, zusammen {amount}",
        "{who} schuldet uns seit dem {date} {amount}.",
    ),
    "en": (
        "Invoice of {date} for {amount}.",
        "On {date} we paid {amount}.",
        "{who}: {amount}, due on {date}",
        "Please transfer {amount} by {date}.",
        "{what} for {amount}, delivered on {date}.",
        "Receipt of {date}, sum {amount}",
        "The amount of {amount} was credited on {date}.",
        "{who} sent {amount} on {date}.",
        "Date: {date}\nAmount: {amount}",
        "The rent ({amount}) is due on {date}.",
        "Order of {date}: {what}, {amount} in all",
        "{who} has owed us {amount} since {date}.",
    ),
    "es": (
        "Factura del {date} por {amount}.",
        "El {date} pagamos {amount}.",
        "{who}: {amount}, vence el {date}",
        "Por favor, transfiera {amount} antes del {date}.",
        "{what} por {amount}, entrega el {date}.",
        "Recibo del {date}, suma {amount}",
        "El importe de {amount} se abonó el {date}.",
        "{who} envió {amount} el {date}.",
        "Fecha: {date}\nImporte: {amount}",
        "El alquiler ({amount}) vence el {date}.",
        "Pedido del {date}: {what}, en total {amount}",
        "{who} nos debe {amount} desde el {date}.",
    ),
    "fr": (
        "Facture du {date} de {amount}.",
        "Le {date}, nous avons payé {amount}.",
        "{who} : {amount}, à payer le {date}",
        "Merci de virer {amount} avant le {date}.",
        "{what} pour {amount}, livraison le {date}.",
        "Reçu du {date}, somme {amount}",
        "Le montant de {amount} a été crédité le {date}.",
        "{who} a envoyé {amount} le {date}.",
        "Date : {date}\nMontant : {amount}",
        "Le loyer ({amount}) est dû le {date}.",
        "Commande du {date} : {what}, en tout {amount}",
        "{who} nous doit {amount} depuis le {date}.",
    ),
    "zh": (
        "{date}的发票，金额{amount}。",
        "我们于{date}支付了{amount}。",
        "{who}：{amount}，{date}到期",
        "请在{date}之前汇款{amount}。",
        "{what}，价格{amount}，{date}送到。",
        "{date}的收据，合计{amount}",
        "{amount}已于{date}入账。",
        "{who}在{date}汇来{amount}。",
        "日期：{date}\n金额：{amount}",
        "房租（{amount}）于{date}到期。",
        "{date}的订单：{what}，共{amount}",
        "{who}从{date}起欠我们{amount}。",
    ),
}
"""Language → its sentences."""

WHO: Final[dict[str, tuple[str, ...]]] = {
    "de": ("Frau Weber", "Herr Lang", "Bäckerei Sommer", "Firma Nord", "Das Hotel", "Die Schule"),
    "en": ("Ms Baker", "Mr Hill", "North Ltd", "The bakery", "The hotel", "The school"),
    "es": ("La señora Gil", "El señor Ruiz", "Norte SA", "La panadería", "El hotel", "La escuela"),
    "fr": ("Madame Petit", "Monsieur Roux", "Nord SA", "La boulangerie", "L'hôtel", "L'école"),
    "zh": ("王女士", "李先生", "北方公司", "面包店", "酒店", "学校"),
}

WHAT: Final[dict[str, tuple[str, ...]]] = {
    "de": ("Ein Fahrrad", "Eine Lampe", "Zwei Stühle", "Papier", "Eine Kamera", "Bücher"),
    "en": ("A bicycle", "A lamp", "Two chairs", "Paper", "A camera", "Books"),
    "es": ("Una bicicleta", "Una lámpara", "Dos sillas", "Papel", "Una cámara", "Libros"),
    "fr": ("Un vélo", "Une lampe", "Deux chaises", "Du papier", "Une caméra", "Des livres"),
    "zh": ("自行车", "灯", "两把椅子", "纸", "相机", "书"),
}
