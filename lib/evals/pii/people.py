"""Names of invented people, places and firms: a half to develop on and another to report on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cast:
    """What a half draws from. `people`: given and family names that go together, by origin."""

    people: tuple[tuple[str, str], ...]
    places: str
    organisations: str
    domains: str

    def choices(self, field: str) -> list[str]:
        return [entry.strip() for entry in getattr(self, field).replace("\n", " ").split(";") if entry.strip()]


DEVELOP = Cast(
    people=(
        ("James Emily Robert Hannah Christopher Rebecca", "Whitaker Holloway Pemberton Ashworth Caldwell"),
        ("Tyrone Latoya Marcus Brianna", "Jefferson Booker Gaines"),
        ("Lukas Katharina Jürgen Annika", "Schneider Müller Hoffmann Krämer"),
        ("Élodie Mathieu Camille Jean-Luc", "Lefèvre Moreau Dubois Rousseau"),
        ("Alejandro Lucía Javier Marisol", "García Hernández Castillo Ibáñez"),
        ("Giulia Matteo Alessandra Lorenzo", "Ricci Bianchi Esposito Fontana"),
        ("Oluwaseun Ngozi Chinedu Funmilayo", "Adebayo Okafor Eze Balogun"),
        ("Aarav Priya Rohan Lakshmi", "Sharma Iyer Mehta Reddy"),
        ("Wei Xiuying Jun Mei", "Zhang Chen Huang Liu"),
        ("Nguyen Linh Minh Huong", "Tran Pham Vu Dang"),
        ("Fatima Ahmed Layla Youssef", "Haddad Mansour Al-Rashid Khoury"),
        ("Katarzyna Piotr Agnieszka Tomasz", "Kowalski Nowak Wojcik Zielinski"),
        ("Dmitri Svetlana Alexei Olga", "Ivanov Petrova Sokolov Morozova"),
        ("Haruto Yuki Sakura Kenji", "Tanaka Suzuki Nakamura Watanabe"),
        ("Ji-woo Min-jun Seo-yeon", "Kim Park Choi"),
        ("Mehmet Elif Emre Zeynep", "Yılmaz Demir Kaya Öztürk"),
        ("Siobhán Cillian Aoife", "O'Connor Gallagher Byrne"),
        ("João Beatriz Thiago Mariana", "Silva Pereira Oliveira Ferreira"),
    ),
    places="""Manchester; Leeds; Bristol; Chicago; Denver; Portland; Hamburg; Leipzig; Lyon; Toulouse; Valencia;
        Seville; Turin; Bologna; Lagos; Abuja; Mumbai; Pune; Shanghai; Chengdu; Hanoi; Cairo; Beirut; Warsaw; Gdansk;
        Moscow; Osaka; Kyoto; Busan; Ankara; Izmir; Dublin; Porto; São Paulo; Canada; Germany; Kenya; Norway; Texas;
        Ohio""",
    organisations="""Northgate Logistics Ltd; Hartwell & Sons; Kessler Maschinenbau GmbH; Banque Delacroix SA;
        Meridian Health Trust; Sunrise Dairy Cooperative; Okonkwo Textiles Ltd; Patel Brothers Inc.; Iberdata S.A.;
        University of Bristol; Riverside General Hospital; Lakeview High School; Blackwood Insurance Group;
        Tanaka Precision Co., Ltd.; First Harbour Bank; Vistula Energia Sp. z o.o.; Greenfield Council;
        Fontana Arredi S.r.l.; Orion Freight LLC;
        Redstone Mining Corporation""",
    domains="""northgate-logistics.co.uk; hartwell.com; kessler-maschinenbau.de; delacroix.fr; gmail.com; outlook.com;
        meridianhealth.org; iberdata.es; fontana-arredi.it; orionfreight.net; protonmail.com; vistula.pl;
        yahoo.co.in""",
)

HELD_OUT = Cast(
    people=(
        ("Thomas Charlotte Edward Victoria Benjamin Philippa", "Ellsworth Thornbury Radcliffe Lockwood Marsden"),
        ("Deshawn Keisha Jamal Aaliyah", "Washington Coleman Rivers"),
        ("Maximilian Friederike Stefan Ulrike", "Bauer Lindemann Vogel Schröder"),
        ("Amélie Guillaume Hélène Thibault", "Fournier Girard Lambert Chevalier"),
        ("Santiago Carmen Ignacio Ximena", "Navarro Domínguez Vargas Rojas"),
        ("Chiara Davide Federica Stefano", "Marchetti Colombo Ferrari Greco"),
        ("Adaeze Babatunde Ifeoma Kwame", "Nwosu Ogunleye Mensah Abiodun"),
        ("Arjun Ananya Vikram Deepika", "Patel Krishnan Banerjee Nair"),
        ("Xiaoming Lihua Jianhong Yan", "Wang Zhao Sun Guo"),
        ("Thuy Quang Anh Bao", "Le Hoang Bui Ngo"),
        ("Omar Amina Khalid Noor", "Farouk El-Sayed Hussein Nasser"),
        ("Magdalena Krzysztof Ewa Marek", "Wisniewska Lewandowski Kaminska Mazur"),
        ("Sergei Natalia Pavel Irina", "Volkov Smirnova Kuznetsov Popova"),
        ("Takeshi Aiko Hiroshi Naomi", "Yamamoto Kobayashi Sato Fujimoto"),
        ("Hyun-woo Eun-ji Soo-min", "Lee Jung Kang"),
        ("Ayşe Burak Selin Kerem", "Çelik Arslan Aydın Koç"),
        ("Niamh Declan Orla", "O'Brien Doherty Kavanagh"),
        ("Rafael Inês Gustavo Larissa", "Santos Almeida Carvalho Barbosa"),
    ),
    places="""Sheffield; Cardiff; Glasgow; Boston; Seattle; Atlanta; Munich; Stuttgart; Marseille; Bordeaux; Madrid;
        Bilbao; Naples; Verona; Accra; Kano; Bangalore; Chennai; Beijing; Shenzhen; Da Nang; Amman; Casablanca; Krakow;
        Wroclaw; Saint Petersburg; Tokyo; Nagoya; Seoul; Istanbul; Bursa; Cork; Lisbon; Rio de Janeiro; France; Sweden;
        Ghana; Australia; Florida; Michigan""",
    organisations="""Harbourline Shipping Ltd; Prescott & Lane; Vogel Elektrotechnik GmbH; Assurances Beaumont SARL;
        Westbrook Medical Centre; Highland Farmers Association; Mensah Trading Ltd; Nair Software Pvt. Ltd.;
        Cerámicas Navarro S.L.; University of Glasgow; St Andrew's Hospital; Oakridge Primary School;
        Crestview Financial Group; Yamamoto Kogyo K.K.; Second National Bank; Mazur Transport Sp. z o.o.;
        Cardiff City Council; Officine Greco S.p.A.; Pinnacle Roofing LLC; Ironwood Steel Corporation""",
    domains="""harbourline.co.uk; prescottlane.com; vogel-elektro.de; beaumont-assurances.fr; hotmail.com; icloud.com;
        westbrookmedical.org; ceramicasnavarro.es; officinegreco.it; pinnacleroofing.us; gmx.net; mazur-transport.pl;
        nairsoft.in""",
)
